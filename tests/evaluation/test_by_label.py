"""Scores by label and the confusion matrix, against counts by hand."""

import pytest

from spoton.evaluation.by_label import by_label, confusion

TARGETS = ["a", "a", "a", "b", "b"]
SAID = ["a", "a", "b", "b", None]


def test_scores_by_label() -> None:
    first, second, third = by_label(SAID, TARGETS, ["a", "b", "c"])
    assert first == {
        "label": "a",
        "precision": 100.0,
        "recall": pytest.approx(200 / 3),
        "f1": 80.0,
        "examples": 3,
    }
    assert (second["precision"], second["recall"], second["f1"]) == (50.0, 50.0, 50.0)
    assert (third["f1"], third["examples"]) == (0.0, 0)


def test_the_confusion_matrix_counts_missing_answers_last() -> None:
    assert confusion(SAID, TARGETS, ["a", "b"]) == {"labels": ["a", "b"], "counts": [[2, 1, 0], [0, 1, 1]]}
    assert confusion(SAID[:4], TARGETS[:4], ["b", "a"])["counts"] == [[1, 0], [1, 2]]
