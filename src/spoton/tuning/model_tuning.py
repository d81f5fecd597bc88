"""Model tuning: all weights of a copy of the model are learned on one task, the baseline of prompt tuning.

It reads top to bottom: rows of the step, loss, gradients, a step, a look at the validation split now and then. Rows,
losses and evaluation are those of prompt tuning with no prompt. The frozen model itself is never changed.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import DataError, DivergenceError
from spoton.files import sha256_of_text
from spoton.models.engine import Batch, engine_for
from spoton.models.frozen import FrozenModel
from spoton.tasks.task import Task
from spoton.tuning.batches import Encoded, encode, needs_end, rows_of_step
from spoton.tuning.evaluation import Mode, default_mode, evaluate
from spoton.tuning.events import OnEvent, Progress, silent
from spoton.tuning.job import Stopped
from spoton.tuning.memory import SHARE_OF_FREE, count_kept, free_bytes, split
from spoton.tuning.model_checkpoint import (
    ModelState,
    has_model_checkpoint,
    read_model_checkpoint,
    write_model_checkpoint,
)
from spoton.tuning.model_recipe import ModelRecipe
from spoton.tuning.optimizer import Adafactor


@dataclass(frozen=True)
class TunedModel:
    """The result of model tuning.

    Attributes:
        model: The model with its best weights by validation, in float32, frozen again.
        history: One entry a step (``step``, ``loss``) and a look (``step``, ``validation``).
        stopped: Why it ended.
        steps: Steps taken.
        best_step: The step of the weights that were kept.
        scores: Their main metric by split; nothing if there was no look.
        parameters: How many numbers were tuned; four bytes each.
        truncated: Training inputs that lost their middle.
        seconds: Wall time, that before a resume included.
        message: What a user should know of the end, or nothing.
        activation_bytes: Most bytes that a step kept for its backward pass; 0 if no step was taken.
        passes: Into how many passes memory asked to split the largest step.
    """

    model: FrozenModel
    history: list[dict[str, float]]
    stopped: Stopped
    steps: int
    best_step: int
    scores: dict[str, dict[str, float]]
    parameters: int
    truncated: int
    seconds: float
    message: str = ""
    activation_bytes: int = 0
    passes: int = 1


def tune_model(
    model: FrozenModel,
    task: Task,
    recipe: ModelRecipe,
    *,
    mode: Mode | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_event: OnEvent = silent,
    phase: str = "model tuning",
) -> TunedModel:
    """Tunes all weights of a copy of the model. The test split is never looked at here.

    Args:
        model: Where it starts; it stays as it is.
        task: Train and validation splits are used.
        recipe: How to tune.
        mode: How to validate; None: `default_mode`.
        checkpoint: Folder that keeps the state at every look, removed by the caller.
        resume: Go on from ``checkpoint`` if there is a state.
        on_event: Watches the progress.
        phase: What to call this run in progress events.

    Raises:
        DataError: The task has no training or validation examples.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
        RecipeError: The checkpoint belongs to another run.
    """
    if not task.train or not task.validation:
        raise DataError(f"{task.name} needs training and validation examples; found {task.splits()}.")
    mode, began = mode or default_mode(task), time.perf_counter()
    identity = model_run_identity(model, task, recipe, mode)
    tuned = _unfrozen_copy(model, identity)
    weights = dict(tuned.network.named_parameters())
    optimizer = model_optimizer(recipe, list(weights.values()))
    state, best, message = ModelState(), dict[str, Tensor](), ""
    stopped: Stopped = "finished"
    if resume and checkpoint is not None and has_model_checkpoint(checkpoint):
        state, best = read_model_checkpoint(checkpoint, weights, optimizer, identity)
    before, at_start, tokens = state.seconds, state.step, 0
    train = encode(
        model, task.train, end=needs_end(model, task.labels), prompt_length=0,
        max_input_tokens=recipe.max_input_tokens, labels=task.labels,
    )  # fmt: skip
    passes = _Passes(tuned)

    def look() -> bool:
        """Scores the weights on the validation split and keeps the best; False if they are no numbers."""
        nonlocal best
        found = evaluate(tuned, None, task.validation, task, mode, max_input_tokens=recipe.max_input_tokens)
        if found.loss is not None and not math.isfinite(found.loss):
            return False
        loss = math.inf if found.loss is None else found.loss
        entry = {"step": float(state.step), "validation": found.score}
        state.history.append(entry if found.loss is None else entry | {"validation_loss": loss})
        if (found.score, -loss) > (state.best_score, -state.best_loss):
            best, state.best_step = _copied(weights), state.step
            state.best_score, state.best_loss = found.score, loss
        state.seconds = before + time.perf_counter() - began
        if checkpoint is not None:
            write_model_checkpoint(checkpoint, state, weights, optimizer, identity)
        return True

    try:
        if state.step == 0 and is_tuned(model):  # what was tuned on other tasks may already be the best
            look()
        while state.step < recipe.steps:
            if recipe.patience is not None and (since := _looks_since_best(state)) >= recipe.patience:
                message = (
                    f"Stopped after {state.step} of {recipe.steps} steps: {since} looks at the validation split "
                    f"without anything better than step {state.best_step}."
                )
                break
            rows = rows_of_step(len(train), recipe.batch_size, state.step, recipe.seed)
            loss = passes.gradients(train, rows)
            finite = math.isfinite(loss) and all(
                weight.grad is None or bool(torch.isfinite(weight.grad).all()) for weight in weights.values()
            )
            if finite:
                optimizer.step()
                state.step += 1
                state.history.append({"step": float(state.step), "loss": loss})
                if state.step % recipe.evaluate_every == 0 or state.step == recipe.steps:
                    finite = look()
            optimizer.zero_grad(set_to_none=True)
            if not finite:
                stopped = "diverged"
                kept = (
                    f"The best weights so far (step {state.best_step}) are kept. "
                    if _has_looked(state)
                    else ""
                )
                message = (
                    f"The loss or its gradient stopped being a number after step {state.step}. {kept}"
                    f"Lower the learning rate (it was {recipe.learning_rate})."
                )
                break
            tokens += sum(len(train.inputs[row]) for row in rows)
            spent = time.perf_counter() - began
            looks = [entry["validation"] for entry in state.history if "validation" in entry]
            on_event(
                Progress(
                    phase, state.step, recipe.steps, "step", loss=loss, metric=task.metric,
                    validation=looks[-1] if looks else None, best=state.best_score if looks else None,
                    tokens_per_second=tokens / spent, passes=passes.most,
                    seconds_left=spent / (state.step - at_start) * (recipe.steps - state.step),
                )
            )  # fmt: skip
    except KeyboardInterrupt:
        stopped, message = "interrupted", f"Interrupted after {state.step} of {recipe.steps} steps."
    if not _has_looked(state):  # interrupted, or diverged, before the first look
        if stopped == "diverged":
            raise DivergenceError(message)
        best, state.best_step = _copied(weights), state.step
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(best[name])
            weight.grad = None
    return TunedModel(
        model=FrozenModel(f"{model.name}, tuned on {task.name}", tuned.network, tuned.tokenizer),
        history=state.history, stopped=stopped, steps=state.step, best_step=state.best_step,
        scores={"validation": {task.metric: state.best_score}} if _has_looked(state) else {},
        parameters=sum(weight.numel() for weight in weights.values()), truncated=train.truncated,
        seconds=before + time.perf_counter() - began, message=message,
        activation_bytes=passes.bytes, passes=passes.most,
    )  # fmt: skip


def model_optimizer(recipe: ModelRecipe, weights: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The recipe's optimizer for all weights; weight decay as in `make_optimizer`."""
    if recipe.optimizer == "adafactor":
        return Adafactor(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, scaling=True)
    # One pass over the weights instead of one an operation: five times as fast on a processor.
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights)
    return torch.optim.AdamW(
        weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay / recipe.learning_rate, fused=fused
    )


def model_run_identity(model: FrozenModel, task: Task, recipe: ModelRecipe, mode: Mode) -> str:
    """Hash of all that decides a run: only the same run resumes, and no other model has the result's fingerprint."""
    parts = ["model", model.fingerprint, str(model.dtype), task.data_hash(), recipe.model_dump_json(), mode]
    return sha256_of_text(parts)[:16]


def is_tuned(model: FrozenModel) -> bool:
    """Whether model tuning made the weights, as for multi-task model tuning followed by the target."""
    return getattr(model.network.config.get_text_config(), "spoton_tuned", None) is not None


def _unfrozen_copy(model: FrozenModel, identity: str) -> FrozenModel:
    """A float32 copy whose weights want gradients; what comes of them gets a fingerprint of its own."""
    network = copy.deepcopy(model.network).to(torch.float32)  # type: ignore[arg-type]  # transformers wraps it
    if hasattr(network, "hf_quantizer"):  # read from a GGUF file: decoded, but it would refuse to be saved
        del network.hf_quantizer
        del network.config.quantization_config
        network.is_quantized = False
    network.config.get_text_config().spoton_tuned = identity
    copied = FrozenModel(model.name, network, model.tokenizer)
    engine_for(copied)  # chosen while no weight wants a gradient
    network.requires_grad_(True)
    return copied


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _has_looked(state: ModelState) -> bool:
    return math.isfinite(state.best_score)


def _looks_since_best(state: ModelState) -> int:
    return sum("validation" in entry and entry["step"] > state.best_step for entry in state.history)


class _Passes:
    """Loss and weight gradients of a step, in as many passes as memory asks for.

    Attributes:
        bytes: Most bytes that a pass has kept for its backward pass.
        most: Most passes that a step has taken.
    """

    def __init__(self, model: FrozenModel) -> None:
        self._model, self._engine = model, engine_for(model)
        self._nothing = torch.zeros(1, 0, model.dim, device=model.device)
        self._bytes_per_token = self._limit = 0.0
        self._most_tokens = 0
        self.bytes, self.most = 0, 1

    def gradients(self, train: Encoded, rows: Sequence[int]) -> float:
        """Adds the gradient of the mean loss to every weight; returns this loss, nats a target token."""
        total = sum(len(train.targets[row]) for row in rows)
        costs = [len(train.inputs[row]) + len(train.targets[row]) for row in rows]
        if not self._bytes_per_token:
            with count_kept(self._model.network) as kept:
                self._engine.losses(self._nothing, train.batch(rows[:1]))
            self._bytes_per_token = max(1.0, kept.bytes / costs[0])
            self._limit = SHARE_OF_FREE * free_bytes(self._model.device)
        parts = split(costs, self._limit / self._bytes_per_token)
        self.most = max(self.most, len(parts))
        loss = 0.0
        for part in parts:
            batch, tokens = train.batch([rows[i] for i in part]), sum(costs[i] for i in part)
            mean = self._losses(batch, tokens).sum() / total
            mean.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            loss += float(mean.detach())
        return loss

    def _losses(self, batch: Batch, tokens: int) -> Tensor:
        """The engine's losses; what they keep is counted whenever a pass is larger than all before it."""
        if tokens <= self._most_tokens:
            return self._engine.losses(self._nothing, batch)
        with count_kept(self._model.network) as kept:
            found = self._engine.losses(self._nothing, batch)
        self.bytes, self._most_tokens = max(self.bytes, kept.bytes), tokens
        return found
