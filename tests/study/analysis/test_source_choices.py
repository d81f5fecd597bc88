"""Table 3 on one target with three sources, worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spoton.study.analysis.source_choices import SourceChoices, ndcg, regret
from spoton.study.results.score_arrays import ScoreArrays
from spoton.study.results.study_results import Score
from tests.study.made import arrays

nan = math.nan
# Validation says b, c, a; test says c, b, a; similarity says a, c, b.
VALIDATION = {None: [58.0], "a": [60.0], "b": [70.0], "c": [65.0]}
TEST = {None: [60.0], "a": [62.0], "b": [68.0], "c": [72.0]}
SIMILARITY = np.array([0.9, 0.1, 0.5])[:, None, None]


def choices() -> SourceChoices:
    return SourceChoices.of(arrays(VALIDATION), arrays(TEST), {"average_tokens": SIMILARITY})


@pytest.mark.parametrize(("k", "score"), [(1, 62.0), (2, 72.0), (3, 68.0), (9, 68.0)])
def test_best_of_top_k_is_chosen_by_validation_and_reported_on_test(k: int, score: float) -> None:
    assert choices().best_of_top("average_tokens", k).item() == score


def test_best_of_top_k_on_validation() -> None:
    found = choices()
    assert [found.best_of_top("average_tokens", k, on_validation=True).item() for k in (1, 2, 3)] == [
        60,
        65,
        70,
    ]


def test_the_oracle_looks_at_test_and_nothing_beats_it() -> None:
    found = choices()
    assert found.oracle().item() == 72.0 and found.best_by_validation().item() == 68.0
    assert found.sizes == range(1, 4)


def test_the_oracle_of_other_seeds_chooses_without_the_seed_that_it_is_scored_on() -> None:
    test = {None: [60.0] * 3, "a": [60.0, 61.0, 90.0], "b": [50.0] * 3, "c": [80.0, 80.0, 65.0]}
    grid = arrays(test)
    found = SourceChoices.of(grid, grid, {})
    assert found.oracle().tolist() == [[80.0, 80.0, 90.0]]
    # For seed 0 the means of seeds 1 and 2 are 75.5, 50 and 72.5: a. For seed 1: 75, 50, 72.5: a. For seed 2: c.
    assert found.oracle_of_other_seeds().tolist() == [[60.0, 61.0, 65.0]]


def test_one_seed_has_no_oracle_of_other_seeds() -> None:
    assert np.isnan(choices().oracle_of_other_seeds()).all()


@pytest.mark.parametrize(
    ("k", "score"), [(1, (62 + 68 + 72) / 3), (2, (2 * 68 + 72) / 3), (3, 68.0), (7, 68.0)]
)
def test_random_choice_is_exact(k: int, score: float) -> None:
    """Of two drawn from b, c, a (by validation), b is the best in two of three draws and c in one."""
    assert choices().random(k).item() == pytest.approx(score)


def test_a_row_has_absolute_and_relative_change_and_what_is_kept() -> None:
    found = choices()
    row = found.row("best-of-top-k", "average_tokens", 1, found.best_of_top("average_tokens", 1))
    assert row.absolute.mean == 2.0 and row.relative.mean == pytest.approx(5.0) and row.average.mean == 62.0
    assert row.kept == pytest.approx(2 / 12) and row.targets == 1
    assert row.within_noise is None  # one seed
    baseline = found.row("baseline", None, None, found.scratch)
    assert baseline.absolute.mean == 0.0 and baseline.kept == 0.0


def test_ndcg() -> None:
    ideal = 10 + 6 / math.log2(3)  # c is 10 above the worst, b 6
    assert ndcg(choices(), "average_tokens").mean == pytest.approx((10 / math.log2(3) + 6 / 2) / ideal)
    mean_discount = (1 + 1 / math.log2(3) + 1 / 2) / 3
    assert ndcg(choices(), None).mean == pytest.approx(16 * mean_discount / ideal)
    best = replace(choices(), similarity={"average_tokens": arrays(TEST).transfer / 100})
    assert ndcg(best, "average_tokens").mean == pytest.approx(1.0)


def test_ndcg_of_equal_sources_is_not_defined() -> None:
    equal = arrays({None: [60.0], "a": [62.0], "b": [62.0], "c": [62.0]})
    found = SourceChoices.of(equal, equal, {"average_tokens": SIMILARITY})
    assert math.isnan(ndcg(found, "average_tokens").mean)


@pytest.mark.parametrize(("k", "lost"), [(1, 100 * 10 / 72), (2, 0.0), (3, 100 * 4 / 72)])
def test_regret(k: int, lost: float) -> None:
    assert regret(choices(), "average_tokens", k).mean == pytest.approx(lost)


def test_regret_of_random_choice() -> None:
    assert regret(choices(), None, 1).mean == pytest.approx(100 * (72 - 202 / 3) / 72)


def test_means_are_over_targets_then_seeds_and_deviations_over_seeds() -> None:
    scores = {None: [50.0, 60.0], "a": [60.0, 66.0], "b": [58.0, 70.0]}
    found = SourceChoices.of(arrays(scores), arrays(scores), {})
    row = found.row("oracle", None, None, found.oracle())
    assert row.absolute.mean == 10.0 and row.absolute.std == pytest.approx(0.0) and row.absolute.n == 2
    row = found.row("random", None, 1, found.random(1))
    assert row.absolute.mean == pytest.approx((9 + 8) / 2) and row.absolute.std == pytest.approx(
        math.sqrt(0.5)
    )
    assert row.within_noise is False


def test_a_source_without_a_key_is_not_ranked_and_one_without_a_score_is_not_there() -> None:
    keyless = SIMILARITY.copy()
    keyless[0] = nan
    found = SourceChoices.of(arrays(VALIDATION), arrays(TEST), {"average_tokens": keyless})
    assert found.ranked("average_tokens", np.array([0, 1, 2]), 0, 0).tolist() == [2, 1]
    assert found.ranked_sizes("average_tokens") == range(1, 3)  # k = 3 would be k = 2 again
    gone = SourceChoices.of(arrays(VALIDATION), arrays(TEST | {"c": [nan]}), {"average_tokens": SIMILARITY})
    assert gone.best_of_top("average_tokens", 2).item() == 68.0  # a and b are left
    assert gone.sizes == range(1, 3)


def test_a_seed_without_a_run_from_scratch_is_left_out_of_changes() -> None:
    scores = {None: [50.0, nan], "a": [60.0, 90.0]}
    found = SourceChoices.of(arrays(scores), arrays(scores), {})
    row = found.row("oracle", None, None, found.oracle())
    assert (row.absolute.mean, row.absolute.n, row.targets) == (10.0, 1, 1)


def test_nothing_is_kept_of_a_gain_that_is_not_there() -> None:
    worse = {None: [60.0], "a": [50.0]}
    found = SourceChoices.of(arrays(worse), arrays(worse), {})
    assert math.isnan(found.row("oracle", None, None, found.oracle()).kept)


def test_a_target_without_a_key_is_in_no_retrieval_figure() -> None:
    """Of two targets one has no key; its sources stand in an order that would have retrieved the best one."""
    scores = [Score(target, source, 0, score) for target, rows in (
        ("x", {None: 50.0, "a": 60.0, "b": 55.0}), ("y", {None: 50.0, "a": 90.0, "b": 10.0}),
    ) for source, score in rows.items()]  # fmt: skip
    grid = ScoreArrays.of(scores, ["a", "b"], ["x", "y"])
    similarity = np.array([[[0.1], [nan]], [[0.9], [nan]]])
    found = SourceChoices.of(grid, grid, {"average_tokens": similarity})
    assert found.targets == (0, 1) and found.retrievable == (0,)
    nearest = found.best_of_top("average_tokens", 1)
    assert nearest[0].item() == 55.0 and math.isnan(nearest[1].item())
    row = found.row("best-of-top-k", "average_tokens", 1, nearest, found.retrievable)
    assert (row.absolute.mean, row.kept, row.targets) == (5.0, 0.5, 1)
    assert ndcg(found, None).mean == pytest.approx((1 + 1 / math.log2(3)) / 2)  # x alone
    assert regret(found, None, 1).mean == pytest.approx(100 * 2.5 / 60)


def tied(losses: dict[tuple[str, str, int], float]) -> SourceChoices:
    """Validation gives a and b 70 each and c less; on test they have 62, 68 and 72."""
    validation = VALIDATION | {"a": [70.0]}
    return SourceChoices.of(arrays(validation), arrays(TEST), {"average_tokens": SIMILARITY}, losses)


def test_what_validation_cannot_tell_apart_is_averaged_over() -> None:
    found = tied({})
    assert found.best_by_validation().item() == 65.0
    # Whatever order sources are gone through in, all of them are the same choice.
    assert found.best_of_top("average_tokens", 3).item() == found.random(3).item() == 65.0
    assert found.random(1).item() == pytest.approx((62 + 68 + 72) / 3)
    assert found.random(2).item() == pytest.approx((65 + 62 + 68) / 3)  # {a, b}, {a, c}, {b, c}
    assert found.best_of_top("average_tokens", 2).item() == 62.0  # a and c: c is behind


def test_a_tie_is_broken_by_the_validation_loss_before_that() -> None:
    found = tied({("a", "x", 0): 0.5, ("b", "x", 0): 0.4, ("c", "x", 0): 0.1})
    assert found.best_by_validation().item() == found.random(3).item() == 68.0
    assert found.best_of_top("average_tokens", 3).item() == 68.0
    assert found.best_of_top("average_tokens", 3, on_validation=True).item() == 70.0


def test_a_baseline_that_is_a_mean_is_compared_with_every_seed() -> None:
    scores = [Score("x", None, None, 50.0, 1.0, 3)] + [Score("x", "a", seed, 60.0 + seed) for seed in (0, 1)]
    grid = ScoreArrays.of(scores, ["a"], ["x"])
    found = SourceChoices.of(grid, grid, {})
    row = found.row("oracle", None, None, found.oracle())
    assert (row.absolute.mean, row.absolute.n, row.targets) == (10.5, 2, 1)
    assert grid.unpaired == ("x",) and grid.missing() == []


def test_transfers_that_are_means_are_compared_with_the_mean_of_seeds() -> None:
    scores = [Score("x", "a", None, 60.0, 1.0, 3)] + [Score("x", None, seed, 50.0 + seed) for seed in (0, 1)]
    grid = ScoreArrays.of(scores, ["a"], ["x"])
    found = SourceChoices.of(grid, grid, {})
    assert found.row("oracle", None, None, found.oracle()).absolute.mean == 9.5


def test_a_loss_that_is_unknown_for_one_source_decides_no_tie() -> None:
    found = tied({("a", "x", 0): 9.0})  # nothing is known of b's
    assert found.best_by_validation().item() == found.random(3).item() == 65.0


def test_seeds_from_scratch_that_no_transfer_has_are_compared_as_a_mean() -> None:
    grid = arrays({None: [50.0, 52.0, nan, nan], "a": [nan, nan, 60.0, 62.0]})
    found = SourceChoices.of(grid, grid, {})
    assert found.row("oracle", None, None, found.oracle()).absolute.mean == 10.0
    assert grid.unpaired == ("x",) and grid.unmatched == ()
    assert arrays({None: [50.0, nan], "a": [60.0, 62.0]}).unmatched == ("x",)
