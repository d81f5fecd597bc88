"""The majority baseline: the score of always giving the most frequent answer."""

from __future__ import annotations

from spoton.tasks.metrics import compute
from spoton.tasks.stored.rows import target_counts
from spoton.tasks.task import Task


def majority_scores(task: Task) -> dict[str, float]:
    """Returns, by split, the main metric of always giving the training split's most frequent target.

    Validation and test are scored where they have rows.
    """
    most = target_counts(task.train).most_common(1)[0][0]
    scores = {}
    for split, examples in (("validation", task.validation), ("test", task.test)):
        if examples:
            targets = [example.target for example in examples]
            always = compute(task.metrics, [most] * len(targets), targets, task.labels, examples=examples)
            scores[split] = always[task.metric]
    return scores
