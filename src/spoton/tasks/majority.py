"""The scores of answers that read nothing: the most frequent one, and the best constant one."""

from __future__ import annotations

from collections.abc import Sequence

from spoton.tasks.example import Example
from spoton.tasks.metrics import compute
from spoton.tasks.stored.rows import target_counts
from spoton.tasks.task import Task


def majority_scores(task: Task) -> dict[str, float]:
    """Returns, by split, the main metric of always giving the training split's most frequent target.

    Validation and test are scored where they have rows.
    """
    most = target_counts(task.train).most_common(1)[0][0]
    splits = {"validation": task.validation, "test": task.test}
    return {split: _constant_score(task, rows, most) for split, rows in splits.items() if rows}


def best_constant_score(task: Task, examples: Sequence[Example]) -> float:
    """Returns the best main metric that one label, given to all of some examples, reaches there.

    Unlike the majority answer, it is chosen on the scored examples: a bound that a prompt has to beat.

    Args:
        task: A task with a closed set of labels.
        examples: Examples of it, at least one.
    """
    return max(_constant_score(task, examples, label) for label in task.labels or ())


def _constant_score(task: Task, examples: Sequence[Example], answer: str) -> float:
    targets = [example.target for example in examples]
    return compute(task.metrics, [answer] * len(targets), targets, task.labels, examples=examples)[
        task.metric
    ]
