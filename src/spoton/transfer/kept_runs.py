"""One arm of a comparison: a tuning run, scored on the test split once, kept so that it never runs twice.

An arm that is finished lies in the work folder under a name that hashes all that decides it; an unfinished one lies
there as a checkpoint. A killed comparison therefore goes on where it was. What is damaged there is done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from spoton.errors import PromptError
from spoton.evaluation.score import Mode
from spoton.events import OnEvent
from spoton.files import atomic_write, sha256_of_text
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.reading import read_bytes
from spoton.sealing import sealed_json, unsealed_json
from spoton.tasks.task import Task
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.kept import score_test_split, tune_to_end
from spoton.tuning.prompt_run import Job, Tuned, run_identity
from spoton.tuning.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """One finished tuning run.

    Attributes:
        prompt: Best value by validation, key, card.
        history: Losses and looks, by step.
        steps: Steps taken.
        message: What a user should know of its end.
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
        """What decides between runs: validation score, then validation loss."""
        looks = [look for look in self.history if look.get("step") == self.prompt.card.best_step]
        losses = [look["validation_loss"] for look in looks if "validation_loss" in look]
        return self.validation, -min(losses, default=0.0)


class KeptRuns:
    """Runs and keeps the arms of one comparison.

    Args:
        model: The frozen model.
        task: The target task.
        mode: How to evaluate.
        folder: Where runs are kept; None keeps nothing.
        on_event: Watches the progress.
    """

    def __init__(
        self, model: FrozenModel, task: Task, mode: Mode, folder: Path | None, on_event: OnEvent
    ) -> None:
        self.model, self.task, self.mode, self.folder, self.on_event = model, task, mode, folder, on_event

    def tuned(
        self, phase: str, recipe: Recipe, initial: Tensor | None = None, parents: Sequence[Parent] = ()
    ) -> Run:
        """The finished run of ``recipe`` from ``initial``, tuned now or found in the folder.

        Raises:
            Interrupted: Ctrl-C; the message says what was reached.
        """
        start = initial if initial is not None else starting_prompt(self.model, self.task, recipe)[0]
        name = run_identity(self.model, self.task, recipe, self.mode, start)
        kept = self._kept(name)
        if kept is not None:
            return kept
        checkpoint = None if self.folder is None else self.folder / f"{name}.checkpoint"
        job = Job(
            self.task, recipe, initial, parents, self.mode, checkpoint, resume=True, on_event=self.on_event, phase=phase
        )  # fmt: skip
        return self._keep(name, tune_to_end(self.model, job))

    def test(self, phase: str, prompt: SoftPrompt | None, max_input_tokens: int) -> float:
        """The main metric on the test split; looked up if this prompt was tested before."""
        which = prompt.content_hash() + str(prompt.card.calibration) if prompt else "zero-shot"
        held = [self.model.fingerprint, str(self.model.dtype), self.task.data_hash(), self.mode]
        name = f"test-{sha256_of_text([which, *held, str(max_input_tokens)])[:16]}"
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is not None and (kept := _read(path)) is not None:
            return float(kept["score"])
        scores = score_test_split(
            self.model, prompt, self.task, self.mode,
            max_input_tokens=max_input_tokens, on_event=self.on_event, phase=phase,
        )  # fmt: skip
        score = scores[self.task.metric]
        if path is not None:
            atomic_write(path, sealed_json({"score": score}))
        return score

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
            (self.folder / f"{name}.checkpoint").unlink(missing_ok=True)
        return run


def _read(path: Path) -> dict[str, Any] | None:
    """A kept document; None if it is not there or damaged."""
    try:
        return unsealed_json(read_bytes(path), required=True)
    except (FileNotFoundError, ValueError):
        return None
