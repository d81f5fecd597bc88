"""What a study's results say of its cells, without a study."""

from __future__ import annotations

from typing import Any

import pytest

from spoton.study.results.collect import _learned


def source(seed: int, score: float) -> dict[str, Any]:
    return {
        "task": "a", "seed": seed, "metric": "accuracy", "labels": 2, "scores": {"test": score},
        "splits": {"test": 100}, "majority": {"test": 50.0},
    }  # fmt: skip


@pytest.mark.parametrize(("score", "learned"), [(58.0, False), (61.0, True)])
def test_more_seeds_are_not_more_rows(score: float, learned: bool) -> None:
    # The interval of 58 of 100 begins at 48.2, that of 61 of 100 at 51.2, and that of 174 of 300 at 52.3.
    for seeds in (1, 3):
        assert _learned({"source": [source(seed, score) for seed in range(seeds)]}) == {"a": learned}
