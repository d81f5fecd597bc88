"""Leaving one target out: what each gets is what the others chose, by validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spoton.study.analysis.held_out import metric_for_k, smallest_k
from spoton.study.analysis.similarities import Measure
from spoton.study.analysis.source_choices import SourceChoices
from spoton.study.results.score_arrays import ScoreArrays
from spoton.study.results.study_results import Score

TARGETS = ("x", "y", "z")


def study(
    gains: dict[str, list[float]], similarities: dict[Measure, list[list[float]]]
) -> tuple[SourceChoices, np.ndarray]:
    """Scores 50 from scratch, and so much more from each source, on validation and test alike."""
    scores = [Score(target, None, 0, 50.0) for target in TARGETS]
    scores += [
        Score(target, source, 0, 50.0 + gain)
        for source, found in gains.items()
        for target, gain in zip(TARGETS, found, strict=True)
    ]
    grid = ScoreArrays.of(scores, list(gains), TARGETS)
    found = {metric: np.array(rows)[:, :, None] for metric, rows in similarities.items()}
    return SourceChoices.of(grid, grid, found), grid.scratch


# By average_tokens source a is nearest everywhere, by per_token_average b. a is good on x and y, and ruins z.
GAINS = {"a": [10.0, 10.0, -30.0], "b": [0.0, 0.0, 1.0]}
NEAREST: dict[Measure, list[list[float]]] = {
    "average_tokens": [[0.9] * 3, [0.1] * 3], "per_token_average": [[0.1] * 3, [0.9] * 3],
}  # fmt: skip


def test_the_similarity_is_chosen_by_the_other_targets() -> None:
    found = metric_for_k(*study(GAINS, NEAREST), 1)
    assert found is not None
    # Without x, b is better on average of y and z; without z, a is better. So each gets what is worse for it.
    assert found.chosen == {
        "best-of-top-k, per_token_average, k = 1": 2,
        "best-of-top-k, average_tokens, k = 1": 1,
    }
    assert found.honest.absolute.mean == pytest.approx(-10.0)
    assert found.picked.absolute.mean == pytest.approx(1 / 3)
    assert found.picked_option == "best-of-top-k, per_token_average, k = 1"
    assert found.to_json()["difference"] == pytest.approx(10 + 1 / 3)


def test_the_smallest_k_that_keeps_enough() -> None:
    gains = {"a": [1.0] * 3, "b": [9.0] * 3, "c": [10.0] * 3}
    found = smallest_k(*study(gains, {"average_tokens": [[0.9] * 3, [0.5] * 3, [0.1] * 3]}))
    assert found is not None
    assert found.chosen == {"best-of-top-k, average_tokens, k = 2": 3}  # 9 of 10 points is more than 80 %
    assert found.honest.absolute.mean == 9.0


def test_validation_chooses_and_test_is_reported() -> None:
    choices, baseline = study(GAINS, NEAREST)
    turned = choices.reported.copy()
    turned[0] = 50.0  # on test, a helps nobody
    found = metric_for_k(replace(choices, reported=turned, _curves={}), baseline, 1)
    assert found is not None
    assert found.chosen["best-of-top-k, average_tokens, k = 1"] == 1  # as before: test has no say
    assert found.honest.absolute.mean == 0.0


def test_one_target_or_one_option_leaves_nothing_to_choose() -> None:
    choices, baseline = study(GAINS, {"average_tokens": NEAREST["average_tokens"]})
    assert metric_for_k(choices, baseline, 1) is None
    both, baseline = study(GAINS, NEAREST)
    alone = replace(both, targets=(0,), _curves={})
    assert metric_for_k(alone, baseline, 1) is None and smallest_k(alone, baseline) is None
