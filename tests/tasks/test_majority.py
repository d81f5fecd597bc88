"""The floor of a task: the training split's most frequent answer, scored on the other splits."""

from __future__ import annotations

from dataclasses import replace

from spoton.tasks.example import Example
from spoton.tasks.majority import majority_scores
from tests.tiny import toy_task


def rows(*targets: str) -> tuple[Example, ...]:
    return tuple(Example(f"text {i}", target) for i, target in enumerate(targets))


def test_it_is_the_answer_of_the_training_split() -> None:
    a, b = toy_task().labels or ()
    task = replace(toy_task(), train=rows(a, a, b), validation=rows(b, b, a, a), test=rows(b, b, b, a))
    assert majority_scores(task) == {"validation": 50.0, "test": 25.0}
    assert majority_scores(replace(task, test=())) == {"validation": 50.0}
