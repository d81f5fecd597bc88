"""Confusions between labels: scores by label and the confusion matrix of an evaluation, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

NO_ANSWER = ""
"""Header of the column for generated texts that match no label."""


def by_label(
    predictions: Sequence[str | None], targets: Sequence[str], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns precision, recall and F1 of each label in percent, and how many examples have it.

    Args:
        predictions: One per example; None where there is no valid answer.
        targets: The correct answers.
        labels: The closed set, in the order of the result.
    """
    from sklearn.metrics import precision_recall_fscore_support

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = precision_recall_fscore_support(
            targets, _answers(predictions), labels=list(labels), average=None, zero_division=0.0
        )
    return [
        {"label": label, "precision": 100 * float(p), "recall": 100 * float(r), "f1": 100 * float(f),
         "examples": int(n)}
        for label, p, r, f, n in zip(labels, *found, strict=True)
    ]  # fmt: skip


def confusion(
    predictions: Sequence[str | None], targets: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """Returns how often each target got each answer.

    Returns:
        `labels`, and `counts`: a row for each label as target, a column for each as answer, and a last column for
        invalid answers, if there are any.
    """
    from sklearn.metrics import confusion_matrix

    with_none = [*labels, *([NO_ANSWER] if None in predictions else [])]
    counts = confusion_matrix(targets, _answers(predictions), labels=with_none)
    return {"labels": list(labels), "counts": [[int(n) for n in row] for row in counts[: len(labels)]]}


def _answers(predictions: Sequence[str | None]) -> list[str]:
    return [NO_ANSWER if prediction is None else prediction for prediction in predictions]
