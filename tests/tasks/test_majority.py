"""The floor of a task: the training split's most frequent answer, scored on the other splits."""

from __future__ import annotations

from dataclasses import replace

from spoton.tasks.example import Example
from spoton.tasks.majority import best_constant_score, majority_scores
from tests.tiny import toy_task


def rows(*targets: str) -> tuple[Example, ...]:
    return tuple(Example(f"text {i}", target) for i, target in enumerate(targets))


def test_it_is_the_answer_of_the_training_split() -> None:
    a, b = toy_task().labels or ()
    task = replace(toy_task(), train=rows(a, a, b), validation=rows(b, b, a, a), test=rows(b, b, b, a))
    assert majority_scores(task) == {"validation": 50.0, "test": 25.0}
    assert majority_scores(replace(task, test=())) == {"validation": 50.0}


def test_the_best_constant_answer_is_that_of_the_scored_rows() -> None:
    a, b = toy_task().labels or ()
    task = toy_task(train=rows(a) * 9, test=rows(a, b, b, b))
    assert best_constant_score(task, task.test) == 75.0  # although every training row has the other label
