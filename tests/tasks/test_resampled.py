"""Metrics of counted resamplings against scoring the resampled rows by scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from spoton.tasks import Example
from spoton.tasks.metrics import resampled_scores
from spoton.tasks.resampled import resampled_counts, scores_of_counts

ROWS = np.random.default_rng(1).integers(3, size=(2, 40))


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "matthews", "f1"])
def test_each_resampling_has_the_score_of_its_rows(name: str) -> None:
    true, said = ROWS % 2 if name == "f1" else ROWS
    counts = resampled_counts(true.tolist(), said.tolist(), 3, 50, np.random.default_rng(0))
    again = np.random.default_rng(0)
    for found in scores_of_counts(name, counts, 3):
        rows = again.integers(40, size=40)
        expected = {
            "accuracy": lambda t, s: sk.accuracy_score(t, s),
            "macro_f1": lambda t, s: sk.f1_score(t, s, average="macro", labels=range(3), zero_division=0),
            "matthews": lambda t, s: sk.matthews_corrcoef(t, s),
            "f1": lambda t, s: sk.f1_score(t, s, zero_division=0),
        }[name](true[rows], said[rows])
        assert found == pytest.approx(expected)


def test_a_missing_answer_is_wrong_in_every_resampling() -> None:
    examples = [Example(str(i), "ab"[i % 2]) for i in range(30)]
    given = ([None] * 30, examples, ["a", "b"], 20, np.random.default_rng(0))
    found = resampled_scores(["accuracy", "macro_f1"], *given)
    assert found is not None and not any(values.any() for values in found.values())
    assert resampled_scores(["f1"], *given) is None


def test_matthews_of_a_hundred_thousand_rows_does_not_overflow() -> None:
    counts = np.array([[[50_000, 0], [0, 50_000]], [[0, 50_000], [50_000, 0]]])
    assert scores_of_counts("matthews", counts, 2) == pytest.approx([1.0, -1.0])
