"""What a run notes of its steps and looks."""

from __future__ import annotations

import math

import pytest

from spoton.evaluation.score import Evaluation
from spoton.tuning.course import Course, is_number


def found(score: float, loss: float | None = None) -> Evaluation:
    return Evaluation("rank", "accuracy", {"accuracy": score}, [], 0, 0, loss)


def test_the_best_look_has_the_highest_score_and_among_these_the_lowest_loss() -> None:
    course = Course()
    assert not course.has_looked
    course.note_step(2.0)
    assert course.note_look(found(50, 0.7))
    course.note_step(1.0)
    assert not course.note_look(found(50, 0.7))
    assert course.note_look(found(50, 0.6))
    assert not course.note_look(found(40, 0.1))
    assert (course.step, course.best_step, course.best_score, course.best_loss) == (2, 2, 50, 0.6)
    assert [look["validation"] for look in course.looks] == [50, 50, 50, 40]
    assert [entry["loss"] for entry in course.history if "loss" in entry] == [2.0, 1.0]


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    course = Course()
    assert not course.note_look(found(math.nan))
    assert not course.has_looked
    assert course.note_look(found(0))


@pytest.mark.parametrize(("loss", "fine"), [(None, True), (0.5, True), (math.nan, False), (math.inf, False)])
def test_a_loss_that_is_no_number_shows(loss: float | None, fine: bool) -> None:
    assert is_number(found(1, loss)) is fine


def test_patience_counts_looks_since_the_best_and_only_right_after_a_look() -> None:
    course = Course()
    assert not course.out_of_patience(1, 10)
    for score in (5, 4, 3):
        course.note_step(1.0)
        course.note_look(found(score))
    assert not course.out_of_patience(None, 10)
    assert not course.out_of_patience(3, 10)
    assert "3 of 10 steps: 2 looks" in course.out_of_patience(2, 10)
    course.note_step(1.0)
    assert not course.out_of_patience(2, 10)
