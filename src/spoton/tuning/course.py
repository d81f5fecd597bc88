"""The course of a tuning run: steps, evaluations on the validation split, the best of them, time.

It is the same for one prompt and for all weights of a model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from spoton.evaluation.score import Evaluation
from spoton.events import Progress

CALIBRATED = "_calibrated"
"""What ends the name of a candidate that answers through its calibration."""


@dataclass
class Course:
    """The state of a run after some step.

    Attributes:
        step: Optimizer steps taken.
        best_step: Step of the best evaluation; meaningless before the first.
        best_candidate: The candidate of that step: `last`, `average_calibrated`, ...
        best_score: Its validation score.
        best_loss: Its validation loss; without one, the negative mean of its other metrics, which breaks ties too.
        history: One entry per step or evaluation.
        seconds: Time spent so far.
    """

    step: int = 0
    best_step: int = 0
    best_candidate: str = ""
    best_score: float = float("-inf")
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Course:
        """Returns the course that a checkpoint holds.

        Raises:
            ValueError: A field is missing, unknown, or of the wrong type.
        """
        if plain.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"it holds {', '.join(sorted(plain))}")
        try:
            course = TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            places = ", ".join(str(problem["loc"][0]) for problem in error.errors())
            raise ValueError(f"it is of another type: {places}") from error
        if not 0 <= course.best_step <= course.step:
            raise ValueError(f"its best step is {course.best_step} of {course.step}")
        return course

    @property
    def has_evaluated(self) -> bool:
        """Whether there is a best evaluation."""
        return math.isfinite(self.best_score)

    @property
    def best_uncalibrated_score(self) -> float:
        """The validation score of the best candidate, before its calibration if it has one."""
        name = self.best_candidate.removesuffix(CALIBRATED)
        if name == self.best_candidate:
            return self.best_score
        (best,) = (entry for entry in self.evaluations if entry["step"] == self.best_step)
        return best[f"{name}_validation"]

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """The entries of `history` that are evaluations."""
        return [entry for entry in self.history if "validation" in entry]

    def note_step(self, loss: float) -> None:
        """Records one more step.

        Args:
            loss: Mean loss of its batch, in nats.
        """
        self.step += 1
        self.history.append({"step": float(self.step), "loss": loss})

    def note_evaluation(
        self, candidates: Mapping[str, Evaluation], select: Literal["loss", "score"] = "score"
    ) -> str | None:
        """Records the scores of this step's candidates on the validation split.

        Args:
            candidates: Evaluations by name of the candidate; at least one.
            select: See `TuningRecipe.select`.

        Returns:
            The best of them, if it is better than all earlier ones; else None.
        """
        best = max(candidates, key=lambda name: _rank(candidates[name], select))
        found = candidates[best]
        entry = {"step": float(self.step), "validation": found.score}
        if found.loss is not None:
            entry["validation_loss"] = found.loss
        if len(candidates) > 1:
            for name, other in candidates.items():
                entry[f"{name}_validation"] = other.score
                if other.loss is not None:
                    entry[f"{name}_validation_loss"] = other.loss
        self.history.append(entry)
        by_loss = select == "loss" and found.loss is not None
        before = (-self.best_loss, self.best_score) if by_loss else (self.best_score, -self.best_loss)
        rank = _rank(found, select)
        # Exact match of open text is zero for long. The start would stay the best by that tie, and all tuning be lost.
        beats_start = found.loss is None and self.best_step == 0 < self.step and rank == before
        if not (rank > before or beats_start):  # also true for a score that is NaN
            return None
        self.best_step, self.best_candidate, self.best_score, self.best_loss = (
            self.step, best, found.score, -_tie_breaker(found),
        )  # fmt: skip
        return best

    def out_of_patience(self, patience: int | None, steps: int) -> str:
        """Says why the run should end after this evaluation; an empty string if it should not.

        Args:
            patience: Number of evaluations that may pass without a better one; None or 0: any number.
            steps: Planned steps.
        """
        if not patience or not self.history or "validation" not in self.history[-1]:
            return ""
        since = sum(entry["step"] > self.best_step for entry in self.evaluations)
        if since < patience:
            return ""
        return (
            f"Stopped after {self.step} of {steps} steps: {since} evaluations on the validation split "
            f"without an improvement on step {self.best_step}."
        )


def _rank(found: Evaluation, select: Literal["loss", "score"]) -> tuple[float, float]:
    """Returns the key that ranks evaluations, higher is better."""
    tie_breaker = _tie_breaker(found)
    by_loss = select == "loss" and found.loss is not None
    return (tie_breaker, found.score) if by_loss else (found.score, tie_breaker)


def _tie_breaker(found: Evaluation) -> float:
    """Returns the negative loss; without one, the mean of the metrics other than the main one, or 0."""
    if found.loss is not None:
        return -found.loss
    others = [score for name, score in found.scores.items() if name != found.metric]
    return sum(others) / len(others) if others else 0.0


def is_number(found: Evaluation) -> bool:
    """Returns whether the loss of an evaluation is finite; after NaN or infinity there is nothing to keep."""
    return found.loss is None or math.isfinite(found.loss)


class Clock:
    """Wall time of a run, and its estimate of the time left.

    Args:
        course: The state in which the run begins or resumes.
    """

    def __init__(self, course: Course) -> None:
        self._start, self._before = time.perf_counter(), course.seconds
        self._tokens, self._first_step = 0, course.step

    def elapsed(self) -> float:
        """Returns the seconds spent, including those before a resume."""
        return self._before + time.perf_counter() - self._start

    def progress(
        self, phase: str, course: Course, steps: int, metric: str, loss: float, tokens: int, passes: int
    ) -> Progress:
        """Returns the event of one finished step.

        Args:
            phase: Name of the run.
            course: The run.
            steps: Planned steps.
            metric: The metric of the evaluations.
            loss: Loss of the step.
            tokens: Input tokens of the step.
            passes: Number of passes that memory split the step into.
        """
        self._tokens += tokens
        spent = time.perf_counter() - self._start
        newest = course.history[-1]
        return Progress(
            phase, course.step, steps, "step", loss=loss, metric=metric,
            validation=newest.get("validation"), best=course.best_score if course.has_evaluated else None,
            tokens_per_second=self._tokens / spent, passes=passes,
            seconds_left=spent / (course.step - self._first_step) * (steps - course.step),
        )  # fmt: skip
