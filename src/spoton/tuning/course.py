"""What a tuning run has been through: steps, looks at the validation split, the best of them, time.

The same for one prompt (``prompt_run.py``) and for all weights of a model (``full_model/tune.py``). Not here: what is
tuned.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from spoton.evaluation.score import Evaluation
from spoton.events import Progress


@dataclass
class Course:
    """A run at the end of some step.

    Attributes:
        step: Optimizer steps taken.
        best_step: When the best by validation was found; meaningless before the first look.
        best_score: Its validation score.
        best_loss: Its validation loss, which decides between equal scores.
        history: One entry a step or look at the validation split.
        seconds: Time spent so far.
    """

    step: int = 0
    best_step: int = 0
    best_score: float = float("-inf")
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def has_looked(self) -> bool:
        """Whether there is a best one."""
        return math.isfinite(self.best_score)

    @property
    def looks(self) -> list[dict[str, float]]:
        """The entries of ``history`` that are looks."""
        return [entry for entry in self.history if "validation" in entry]

    def note_step(self, loss: float) -> None:
        """One more step was taken.

        Args:
            loss: Mean loss of its batch, nats a target token.
        """
        self.step += 1
        self.history.append({"step": float(self.step), "loss": loss})

    def note_look(self, found: Evaluation) -> bool:
        """The validation split was scored after this step; returns whether it is the best look so far."""
        loss = math.inf if found.loss is None else found.loss
        entry = {"step": float(self.step), "validation": found.score}
        self.history.append(entry if found.loss is None else entry | {"validation_loss": loss})
        is_best = (found.score, -loss) > (self.best_score, -self.best_loss)
        if is_best:
            self.best_step, self.best_score, self.best_loss = self.step, found.score, loss
        return is_best

    def out_of_patience(self, patience: int | None, steps: int) -> str:
        """Why the run should end after this look, or nothing.

        Args:
            patience: How many looks may pass without a better one; None: any number.
            steps: Steps that were planned.
        """
        if patience is None or not self.history or "validation" not in self.history[-1]:
            return ""
        since = sum(look["step"] > self.best_step for look in self.looks)
        if since < patience:
            return ""
        return (
            f"Stopped after {self.step} of {steps} steps: {since} looks at the validation split "
            f"without anything better than step {self.best_step}."
        )


def is_number(found: Evaluation) -> bool:
    """Whether the loss of a look is one; after NaN or infinity there is nothing to keep."""
    return found.loss is None or math.isfinite(found.loss)


class Clock:
    """Wall time of a run and what it predicts.

    Args:
        course: Where the run begins, or goes on after a resume.
    """

    def __init__(self, course: Course) -> None:
        self._start, self._before = time.perf_counter(), course.seconds
        self._tokens, self._first_step = 0, course.step

    def elapsed(self) -> float:
        """Seconds spent, those before a resume included."""
        return self._before + time.perf_counter() - self._start

    def progress(
        self, phase: str, course: Course, steps: int, metric: str, loss: float, tokens: int, passes: int
    ) -> Progress:
        """The event of one finished step.

        Args:
            phase: What the run is called.
            course: The run.
            steps: Steps that were planned.
            metric: What the looks measure.
            loss: Of the step.
            tokens: Input tokens of the step.
            passes: Into how many passes memory asked to split a step.
        """
        self._tokens += tokens
        spent = time.perf_counter() - self._start
        looks = course.looks
        return Progress(
            phase, course.step, steps, "step", loss=loss, metric=metric,
            validation=looks[-1]["validation"] if looks else None, best=course.best_score if looks else None,
            tokens_per_second=self._tokens / spent, passes=passes,
            seconds_left=spent / (course.step - self._first_step) * (steps - course.step),
        )  # fmt: skip
