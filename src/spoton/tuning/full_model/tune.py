"""Model tuning: all weights of a copy of the model are learned on one task, the baseline of prompt tuning.

It reads top to bottom: rows of the step, loss, gradients, a step, a look at the validation split now and then. Rows,
losses and evaluation are those of prompt tuning with no prompt. The frozen model itself is never changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import DataError, DivergenceError
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.score import Mode, default_mode, evaluate
from spoton.events import OnEvent, silent
from spoton.files import sha256_of_text
from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.tasks.task import Task
from spoton.tuning.course import Clock, Course, is_number
from spoton.tuning.full_model.checkpoint import (
    has_model_checkpoint,
    read_model_checkpoint,
    write_model_checkpoint,
)
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.microbatches import Microbatches
from spoton.tuning.optimizer import Adafactor
from spoton.tuning.prompt_run import Stopped
from spoton.tuning.row_order import rows_of_step


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
    mode = mode or default_mode(task)
    identity = model_run_identity(model, task, recipe, mode)
    tuned = _unfrozen_copy(model, identity)
    weights = dict(tuned.network.named_parameters())
    optimizer = model_optimizer(recipe, list(weights.values()))
    state, best, message = Course(), dict[str, Tensor](), ""
    stopped: Stopped = "finished"
    if resume and checkpoint is not None and has_model_checkpoint(checkpoint):
        state, best = read_model_checkpoint(checkpoint, weights, optimizer, identity)
    clock = Clock(state)
    train = encode(
        model, task.train, end=needs_end(model, task.labels), prompt_length=0,
        max_input_tokens=recipe.max_input_tokens, labels=task.labels,
    )  # fmt: skip
    passes, no_prompt = Microbatches(tuned), torch.zeros(0, model.dim, device=model.device)

    def look() -> bool:
        """Scores the weights on the validation split and keeps the best; False if they are no numbers."""
        nonlocal best
        found = evaluate(tuned, None, task.validation, task, mode, max_input_tokens=recipe.max_input_tokens)
        if not is_number(found):
            return False
        if state.note_look(found):
            best = _copied(weights)
        state.seconds = clock.elapsed()
        if checkpoint is not None:
            write_model_checkpoint(checkpoint, state, weights, optimizer, identity)
        return True

    try:
        if state.step == 0 and is_tuned(model):  # what was tuned on other tasks may already be the best
            look()
        while state.step < recipe.steps:
            message = state.out_of_patience(recipe.patience, recipe.steps)
            if message:
                break
            batch = train.batch(rows_of_step(len(train), recipe.batch_size, state.step, recipe.seed))
            (loss,) = passes.gradients([no_prompt], [batch])
            finite = math.isfinite(loss) and all(
                weight.grad is None or bool(torch.isfinite(weight.grad).all()) for weight in weights.values()
            )
            if finite:
                optimizer.step()
                state.note_step(loss)
                if state.step % recipe.evaluate_every == 0 or state.step == recipe.steps:
                    finite = look()
            optimizer.zero_grad(set_to_none=True)
            if not finite:
                stopped = "diverged"
                kept = (
                    f"The best weights so far (step {state.best_step}) are kept. " if state.has_looked else ""
                )
                message = (
                    f"The loss or its gradient stopped being a number after step {state.step}. {kept}"
                    f"Lower the learning rate (it was {recipe.learning_rate})."
                )
                break
            tokens = sum(map(len, batch.inputs))
            on_event(
                clock.progress(phase, state, recipe.steps, task.metric, loss, tokens, passes.most_passes)
            )
    except KeyboardInterrupt:
        stopped, message = "interrupted", f"Interrupted after {state.step} of {recipe.steps} steps."
    if not state.has_looked:  # interrupted, or diverged, before the first look
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
        scores={"validation": {task.metric: state.best_score}} if state.has_looked else {},
        parameters=sum(weight.numel() for weight in weights.values()), truncated=train.truncated,
        seconds=clock.elapsed(), message=message, activation_bytes=passes.most_bytes, passes=passes.most_passes,
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
