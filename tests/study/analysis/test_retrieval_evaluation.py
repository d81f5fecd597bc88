"""Table 3 on one target with three sources, worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spoton.study.analysis.retrieval_evaluation import Candidates, ndcg, regret
from tests.study.made import arrays

nan = math.nan
# Validation says b, c, a; test says c, b, a; similarity says a, c, b.
VALIDATION = {None: [58.0], "a": [60.0], "b": [70.0], "c": [65.0]}
TEST = {None: [60.0], "a": [62.0], "b": [68.0], "c": [72.0]}
SIMILARITY = np.array([0.9, 0.1, 0.5])[:, None, None]


def candidates() -> Candidates:
    return Candidates.of(arrays(VALIDATION), arrays(TEST), {"average_tokens": SIMILARITY})


@pytest.mark.parametrize(("k", "score"), [(1, 62.0), (2, 72.0), (3, 68.0), (9, 68.0)])
def test_best_of_top_k_is_chosen_by_validation_and_reported_on_test(k: int, score: float) -> None:
    assert candidates().best_of_top("average_tokens", k).item() == score


def test_best_of_top_k_on_validation() -> None:
    found = candidates()
    assert [found.best_of_top("average_tokens", k, on_validation=True).item() for k in (1, 2, 3)] == [
        60,
        65,
        70,
    ]


def test_the_oracle_looks_at_test_and_nothing_beats_it() -> None:
    found = candidates()
    assert found.oracle().item() == 72.0 and found.best_by_validation().item() == 68.0
    assert found.sizes == range(1, 4)


@pytest.mark.parametrize(
    ("k", "score"), [(1, (62 + 68 + 72) / 3), (2, (2 * 68 + 72) / 3), (3, 68.0), (7, 68.0)]
)
def test_random_choice_is_exact(k: int, score: float) -> None:
    """Of two drawn from b, c, a (by validation), b is the best in two of three draws and c in one."""
    assert candidates().random(k).item() == pytest.approx(score)


def test_a_row_has_absolute_and_relative_change_and_what_is_kept() -> None:
    found = candidates()
    row = found.row("best-of-top-k", "average_tokens", 1, found.best_of_top("average_tokens", 1))
    assert row.absolute.mean == 2.0 and row.relative.mean == pytest.approx(5.0) and row.average.mean == 62.0
    assert row.kept == pytest.approx(2 / 12) and row.targets == 1
    assert row.within_noise is None  # one seed
    baseline = found.row("baseline", None, None, found.scratch)
    assert baseline.absolute.mean == 0.0 and baseline.kept == 0.0


def test_ndcg() -> None:
    ideal = 10 + 6 / math.log2(3)  # c is 10 above the worst, b 6
    assert ndcg(candidates(), "average_tokens").mean == pytest.approx((10 / math.log2(3) + 6 / 2) / ideal)
    mean_discount = (1 + 1 / math.log2(3) + 1 / 2) / 3
    assert ndcg(candidates(), None).mean == pytest.approx(16 * mean_discount / ideal)
    best = replace(candidates(), similarity={"average_tokens": arrays(TEST).transfer / 100})
    assert ndcg(best, "average_tokens").mean == pytest.approx(1.0)


def test_ndcg_of_equal_sources_is_not_defined() -> None:
    equal = arrays({None: [60.0], "a": [62.0], "b": [62.0], "c": [62.0]})
    found = Candidates.of(equal, equal, {"average_tokens": SIMILARITY})
    assert math.isnan(ndcg(found, "average_tokens").mean)


@pytest.mark.parametrize(("k", "lost"), [(1, 100 * 10 / 72), (2, 0.0), (3, 100 * 4 / 72)])
def test_regret(k: int, lost: float) -> None:
    assert regret(candidates(), "average_tokens", k).mean == pytest.approx(lost)


def test_regret_of_random_choice() -> None:
    assert regret(candidates(), None, 1).mean == pytest.approx(100 * (72 - 202 / 3) / 72)


def test_means_are_over_targets_then_seeds_and_deviations_over_seeds() -> None:
    scores = {None: [50.0, 60.0], "a": [60.0, 66.0], "b": [58.0, 70.0]}
    found = Candidates.of(arrays(scores), arrays(scores), {})
    row = found.row("oracle", None, None, found.oracle())
    assert row.absolute.mean == 10.0 and row.absolute.std == pytest.approx(0.0) and row.absolute.n == 2
    row = found.row("random", None, 1, found.random(1))
    assert row.absolute.mean == pytest.approx((9 + 8) / 2) and row.absolute.std == pytest.approx(
        math.sqrt(0.5)
    )
    assert row.within_noise is False


def test_a_source_without_a_key_comes_last_and_one_without_a_score_is_not_there() -> None:
    keyless = SIMILARITY.copy()
    keyless[0] = nan
    found = Candidates.of(arrays(VALIDATION), arrays(TEST), {"average_tokens": keyless})
    assert found.ranked("average_tokens", np.array([0, 1, 2]), 0, 0).tolist() == [2, 1, 0]
    gone = Candidates.of(arrays(VALIDATION), arrays(TEST | {"c": [nan]}), {"average_tokens": SIMILARITY})
    assert gone.best_of_top("average_tokens", 2).item() == 68.0  # a and b are left
    assert gone.sizes == range(1, 3)


def test_a_seed_without_a_run_from_scratch_is_left_out_of_changes() -> None:
    scores = {None: [50.0, nan], "a": [60.0, 90.0]}
    found = Candidates.of(arrays(scores), arrays(scores), {})
    row = found.row("oracle", None, None, found.oracle())
    assert (row.absolute.mean, row.absolute.n, row.targets) == (10.0, 1, 1)


def test_nothing_is_kept_of_a_gain_that_is_not_there() -> None:
    worse = {None: [60.0], "a": [50.0]}
    found = Candidates.of(arrays(worse), arrays(worse), {})
    assert math.isnan(found.row("oracle", None, None, found.oracle()).kept)
