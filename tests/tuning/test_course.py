"""What a run notes of its steps and evaluations."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from spoton.evaluation.score import Evaluation
from spoton.tuning.course import Course, is_number


def found(score: float, loss: float | None = None) -> Evaluation:
    return Evaluation("rank", "accuracy", {"accuracy": score}, [], 0, 0, loss)


def test_the_best_evaluation_has_the_highest_score_and_among_these_the_lowest_loss() -> None:
    course = Course()
    assert not course.has_evaluated
    course.note_step(2.0)
    assert course.note_evaluation({"last": found(50, 0.7)})
    course.note_step(1.0)
    assert not course.note_evaluation({"last": found(50, 0.7)})
    assert course.note_evaluation({"last": found(50, 0.6)})
    assert not course.note_evaluation({"last": found(40, 0.1)})
    assert (course.step, course.best_step, course.best_score, course.best_loss) == (2, 2, 50, 0.6)
    assert [evaluation["validation"] for evaluation in course.evaluations] == [50, 50, 50, 40]
    assert [entry["loss"] for entry in course.history if "loss" in entry] == [2.0, 1.0]


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    course = Course()
    assert not course.note_evaluation({"last": found(math.nan)})
    assert not course.has_evaluated
    assert course.note_evaluation({"last": found(0)})


@pytest.mark.parametrize(("loss", "fine"), [(None, True), (0.5, True), (math.nan, False), (math.inf, False)])
def test_a_loss_that_is_no_number_shows(loss: float | None, fine: bool) -> None:
    assert is_number(found(1, loss)) is fine


def test_patience_counts_evaluations_since_the_best_and_only_right_after_a_evaluation() -> None:
    course = Course()
    assert not course.out_of_patience(1, 10)
    for score in (5, 4, 3):
        course.note_step(1.0)
        course.note_evaluation({"last": found(score)})
    assert not course.out_of_patience(None, 10)
    assert not course.out_of_patience(3, 10)
    assert "3 of 10 steps: 2 evaluations" in course.out_of_patience(2, 10)
    course.note_step(1.0)
    assert not course.out_of_patience(2, 10)


def test_of_several_candidates_the_best_is_named_and_each_is_noted() -> None:
    course = Course()
    course.note_step(1.0)
    assert course.note_evaluation({"last": found(50, 0.7), "average": found(60, 0.9)}) == "average"
    entry = course.evaluations[-1]
    assert (entry["validation"], entry["last_validation"], entry["average_validation_loss"]) == (60, 50, 0.9)
    course.note_step(1.0)
    assert course.note_evaluation({"last": found(60, 0.8), "average": found(60, 0.9)}) == "last"
    assert (course.best_step, course.best_candidate, course.best_loss) == (2, "last", 0.8)


def test_selection_by_loss_prefers_the_lower_loss_whatever_the_score() -> None:
    course = Course()
    assert course.note_evaluation({"last": found(60, 0.9), "average": found(50, 0.7)}, "loss") == "average"
    assert course.note_evaluation({"last": found(90, 0.8)}, "loss") is None
    assert course.note_evaluation({"last": found(40, 0.6)}, "loss") == "last"
    assert course.best_score == 40


def test_without_a_loss_the_score_selects() -> None:
    course = Course()
    assert course.note_evaluation({"last": found(10)}, "loss") == "last"
    assert course.note_evaluation({"last": found(9)}, "loss") is None
    assert course.note_evaluation({"last": found(11)}, "loss") == "last"


def test_without_a_loss_the_other_metrics_break_ties() -> None:
    def answered(exact: float, overlap: float) -> Evaluation:
        scores = {"exact_match": exact, "token_f1": overlap}
        return Evaluation("generate", "exact_match", scores, [], 0, 0)

    course = Course()
    assert course.note_evaluation({"last": answered(0, 5)})
    for overlap, better in ((20, True), (20, False), (10, False), (30, True)):
        course.note_step(1.0)
        assert bool(course.note_evaluation({"last": answered(0, overlap)})) is better
    course.note_step(1.0)
    assert not course.note_evaluation({"last": answered(0, 10), "average": answered(0, 20)})
    assert course.note_evaluation({"last": answered(10, 0), "average": answered(0, 50)}) == "last"
    assert Course.of(asdict(course)).best_loss == 0


def test_a_tuned_prompt_that_ties_with_its_untuned_start_replaces_it_once_if_there_is_no_loss() -> None:
    course = Course()
    assert course.note_evaluation({"last": found(0)})
    course.note_step(1.0)
    assert course.note_evaluation({"last": found(0)})
    course.note_step(1.0)
    assert not course.note_evaluation({"last": found(0)})
    assert course.best_step == 1
    assert "1 evaluations" in course.out_of_patience(1, 10), (
        "a tie is no improvement, or patience would never end"
    )
