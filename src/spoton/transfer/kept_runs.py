"""One arm of a comparison: a tuning run, scored on the test split once, and kept so that it never runs twice.

A finished arm is in the work folder under a name that hashes everything that decides it; an unfinished one is there as
a checkpoint. So a killed comparison resumes where it stopped. Damaged parts are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from spoton.errors import PromptError
from spoton.evaluation.score import LabelScore, Mode, evaluate
from spoton.events import OnEvent
from spoton.files import atomic_write, sha256_of_text
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.reading import read_bytes
from spoton.sealing import sealed_json, unsealed_json
from spoton.shapes import Float
from spoton.tasks.task import Task
from spoton.tuning.halving import Halving
from spoton.tuning.identity import what_decides
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.kept import require_end, tune_to_end
from spoton.tuning.parameterization import Collapsible
from spoton.tuning.prompt_run import Job, PromptRun, Tuned, run_identity
from spoton.tuning.recipe import Recipe
from spoton.tuning.sealed_tensors import discard_if_damaged
from spoton.tuning.tune import best_of, checkpoints_of, tune_together

_TEST = ("test", "test_uncalibrated")


@dataclass(frozen=True)
class Run:
    """One finished tuning run.

    Attributes:
        prompt: Best value by validation, key, card.
        history: Losses and evaluations, by step.
        steps: Steps taken.
        message: What a user should know about its end.
        truncated: Training inputs that lost their middle.
    """

    prompt: SoftPrompt
    history: list[dict[str, float]]
    steps: int
    message: str = ""
    truncated: int = 0

    @property
    def validation(self) -> float:
        """The best validation score."""
        return self.prompt.card.scores["validation"][self.prompt.card.metric]

    @property
    def rank(self) -> tuple[float, float]:
        """The key that ranks runs: validation score, then negative validation loss."""
        looks = [look for look in self.history if look.get("step") == self.prompt.card.best_step]
        losses = [look["validation_loss"] for look in looks if "validation_loss" in look]
        return self.validation, -min(losses, default=0.0)


class KeptRuns:
    """Runs and keeps the arms of one comparison.

    Args:
        model: The frozen model.
        task: The target task.
        mode: How to evaluate.
        folder: The folder of kept runs; None keeps nothing.
        on_event: Called with progress events.
    """

    def __init__(
        self, model: FrozenModel, task: Task, mode: Mode, folder: Path | None, on_event: OnEvent
    ) -> None:
        self.model, self.task, self.mode, self.folder, self.on_event = model, task, mode, folder, on_event

    def tuned(
        self,
        phase: str,
        recipe: Recipe,
        initial: Float[Tensor, "P D"] | None = None,
        parents: Sequence[Parent] = (),
        tuned_as: Collapsible | None = None,
    ) -> Run:
        """Returns the finished run of `recipe` from `initial`, tuned now or read from the folder.

        Args:
            phase: Name of the run in progress events.
            recipe: How to tune.
            initial: `[P', D]` to start from; None: as the recipe says.
            parents: The prompts that made `initial`.
            tuned_as: What is tuned in place of the prompt.

        Raises:
            Interrupted: Ctrl-C; the message gives the progress.
        """
        name, job = self._job(phase, recipe, initial, parents, tuned_as)
        return self._kept(name) or self._keep(name, tune_to_end(self.model, job))

    def halved(
        self,
        phase: str,
        recipe: Recipe,
        begun: Sequence[tuple[Float[Tensor, "_ D"], Sequence[Parent]]],
        halving: Halving,
    ) -> Run:
        """Returns the best of several runs that are tuned together; the worse end at rungs.

        Args:
            phase: Name of the run in progress events.
            recipe: How to tune each.
            begun: `[P', D]` to start from and its parents, for each run.
            halving: The rungs.

        Raises:
            Interrupted: Ctrl-C.
            DivergenceError: Every run diverged before there was anything to keep.
        """
        named = [
            self._job(f"{phase} {place} of {len(begun)}", recipe, value, parents)
            for place, (value, parents) in enumerate(begun, start=1)
        ]
        name = "halving-" + sha256_of_text([halving.model_dump_json(), *(name for name, _ in named)])[:16]
        kept = self._kept(name)
        if kept is not None:
            return kept
        for _, job in named:
            if job.checkpoint is not None:
                discard_if_damaged(job.checkpoint)
        results = tune_together(self.model, [job for _, job in named], halving=halving)
        for result in results:
            if isinstance(result, Tuned):
                require_end(result, phase)
        run = self._keep(name, best_of(results))
        for _, job in named:
            if job.checkpoint is not None:
                job.checkpoint.unlink(missing_ok=True)
        return run

    def untuned(
        self, phase: str, recipe: Recipe, value: Float[Tensor, "P D"], parents: Sequence[Parent]
    ) -> Run:
        """Returns an untuned prompt: calibrated and scored on the validation split, with a card of the task.

        Args:
            phase: Name of the run in progress events.
            recipe: Decides how labels are scored and how long inputs are.
            value: `[P, D]`; it keeps its length.
            parents: The prompts that made it.
        """
        # No step is taken, so a rate that is not chosen yet may be any number.
        auto = recipe.learning_rate == "auto"
        whole = recipe.changed(length=len(value), calibrate="end", learning_rate=1.0 if auto else None)
        name, job = self._job(phase, whole, value, parents)
        kept = self._kept(f"untuned-{name}")
        if kept is not None:
            return kept
        run = PromptRun(self.model, replace(job, checkpoint=None))
        run.begin()
        tuned = run.result()
        held = whole.model_dump() | {"steps": 0, "learning_rate": recipe.learning_rate}
        card = tuned.prompt.card.model_copy(update={"recipe": held})
        prompt = replace(tuned.prompt, card=card, start=None)
        return self._keep(f"untuned-{name}", replace(tuned, prompt=prompt))

    def _job(
        self,
        phase: str,
        recipe: Recipe,
        initial: Float[Tensor, "P D"] | None,
        parents: Sequence[Parent],
        tuned_as: Collapsible | None = None,
    ) -> tuple[str, Job]:
        """Returns a run, and the name that hashes everything that decides it."""
        start = initial if initial is not None else starting_prompt(self.model, self.task, recipe)[0]
        name = run_identity(self.model, self.task, recipe, self.mode, start, tuned_as)
        checkpoint = None if self.folder is None else self.folder / f"{name}.checkpoint"
        return name, Job(
            self.task, recipe, initial, parents, self.mode, checkpoint, resume=True, on_event=self.on_event,
            phase=phase, tuned_as=tuned_as,
        )  # fmt: skip

    def test(
        self,
        phase: str,
        prompt: SoftPrompt | None,
        max_input_tokens: int,
        label_score: LabelScore | None = None,
    ) -> dict[str, float]:
        """Returns the main metric on the test split; reads it if this prompt was tested before.

        By the names of a card: `test`, and `test_uncalibrated` if the prompt has a calibration.

        Args:
            phase: Name of the evaluation in progress events.
            prompt: The prompt; None: the bare model.
            max_input_tokens: Longer inputs lose their middle.
            label_score: How the tokens of a label make its score. None: as the prompt was tuned.
        """
        own = (
            None if prompt is None else [prompt.content_hash(), prompt.card.calibration, prompt.card.members]
        )
        which = "zero-shot" if own is None else str(own)
        held = [*what_decides(self.model, self.task, self.mode), *([label_score] if label_score else [])]
        name = f"test-{sha256_of_text([which, *held, str(max_input_tokens)])[:16]}"
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is not None and (kept := _read(path)) is not None and "test" in kept:
            return {name: float(kept[name]) for name in _TEST if name in kept}
        found = evaluate(
            self.model, prompt, self.task.test, self.task, self.mode,
            max_input_tokens=max_input_tokens, label_score=label_score, on_event=self.on_event, phase=phase,
        )  # fmt: skip
        scores = {"test": found.score}
        if found.uncalibrated is not None:
            scores["test_uncalibrated"] = found.uncalibrated.score
        if path is not None:
            atomic_write(path, sealed_json(scores))
        return scores

    def _kept(self, name: str) -> Run | None:
        record = None if self.folder is None else _read(self.folder / f"{name}.json")
        if self.folder is None or record is None:
            return None
        try:
            prompt = SoftPrompt.load(self.folder / f"{name}.safetensors")
        except PromptError:
            return None
        return Run(prompt, **record)

    def _keep(self, name: str, tuned: Tuned) -> Run:
        run = Run(tuned.prompt, tuned.history, tuned.steps, tuned.message, tuned.truncated)
        if self.folder is not None:
            run.prompt.save(self.folder / f"{name}.safetensors")
            record = {
                "history": run.history, "steps": run.steps, "message": run.message, "truncated": run.truncated,
            }  # fmt: skip
            # Last: it says the run is complete.
            atomic_write(self.folder / f"{name}.json", sealed_json(record))
            for left in checkpoints_of(self.folder / f"{name}.checkpoint"):
                left.unlink(missing_ok=True)
        return run


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a kept document; None if it is missing or damaged."""
    try:
        return unsealed_json(read_bytes(path), required=True)
    except (FileNotFoundError, ValueError):
        return None
