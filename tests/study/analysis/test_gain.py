"""Error reductions, their deviations, and what counts as more than noise, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spoton.study.analysis.gain import adjusted, chance_beyond_noise, changes, error_reduction, matrix
from spoton.study.results.score_arrays import Mean, ScoreArrays
from spoton.study.results.study_results import Score
from tests.study.made import arrays


@pytest.mark.parametrize(
    ("base", "score", "expected"),
    [
        (92.7, 97.0, 58.9), (56.7, 69.3, 29.1), (71.5, 77.2, 20.0), (88.1, 90.0, 16.0),  # Table 7 of SPoT
        (50.0, 50.0, 0.0), (50.0, 25.0, -50.0), (0.0, 100.0, 100.0), (-20.0, 40.0, 50.0),
    ],
)  # fmt: skip
def test_error_reduction(base: float, score: float, expected: float) -> None:
    assert float(error_reduction(score, base)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("score", [100.0, 99.0, 0.0])
def test_without_any_error_no_reduction_is_defined(score: float) -> None:
    assert math.isnan(float(error_reduction(score, 100.0)))
    found = changes(arrays({None: [100.0, 100.0], "a": [score, score]}))[0]
    assert math.isnan(found.error_reduction) and math.isnan(found.error_reduction_std)
    assert found.gain == score - 100
    assert found.to_json()["error_reduction"] is None


def test_one_perfect_seed_does_not_hide_the_others() -> None:
    (found,) = changes(arrays({None: [100.0, 80.0, 60.0], "a": [100.0, 90.0, 80.0]}))
    assert found.error_reduction == pytest.approx(50.0)  # of the means 80 and 90
    assert found.error_reduction_std == pytest.approx(0.0)  # 50 % on both seeds that have an error


def test_mean_and_deviation_are_over_seeds() -> None:
    (found,) = changes(arrays({None: [60.0, 62.0, 64.0], "a": [70.0, 72.0, 77.0]}))
    assert (found.score.mean, found.score.n) == (73.0, 3)
    assert found.score.std == pytest.approx(math.sqrt((9 + 1 + 16) / 2))  # n - 1
    assert found.scratch.std == pytest.approx(2.0)
    assert found.gain == pytest.approx(11.0)
    assert found.error_reduction == pytest.approx(100 * 11 / 38)
    by_seed = [100 * 10 / 40, 100 * 10 / 38, 100 * 13 / 36]  # each against its own run from scratch
    assert found.error_reduction_std == pytest.approx(np.std(by_seed, ddof=1))
    paired = stats.ttest_rel([70, 72, 77], [60, 62, 64])
    assert found.p_value == pytest.approx(paired.pvalue) and found.interval.method == "paired t"
    assert found.interval.to_json() == pytest.approx(list(paired.confidence_interval(0.95)))


def test_seeds_that_differ_are_compared_unpaired() -> None:
    (found,) = changes(arrays({None: [60.0, 62.0, 64.0], "a": [70.0, 72.0, math.nan]}))
    assert found.p_value == pytest.approx(stats.ttest_ind([70, 72], [60, 62, 64], equal_var=False).pvalue)
    assert found.interval.method == "Welch" and found.interval.low < 9 < found.interval.high


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        ([66.0, 70.0], "helps"),
        ([54.0, 58.0], "hurts"),
        ([62.0, 64.0], "within noise"),
        ([70.0], "noise unknown"),
    ],
)
def test_a_gain_has_to_exceed_the_deviation_of_either_side(after: list[float], outcome: str) -> None:
    (found,) = changes(arrays({None: [60.0, 64.0], "a": after}))  # its deviation is 2.8
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ([50.0, 50.0], [60.0, 60.0], "noise unknown"),  # no noise seen is not no noise
        ([50.1, 52.3], [60.2, 62.4], "helps"),  # by the deviation of either side, not by an interval
        ([50.1, 52.3, 51.7], [60.2, 62.4, 61.8], "helps"),  # equal but for the fifteenth digit
    ],
)
def test_equal_gains_have_no_interval_of_no_width(
    before: list[float], after: list[float], outcome: str
) -> None:
    (found,) = changes(arrays({None: before, "a": after}))
    assert found.outcome == outcome and not found.is_tested
    assert not found.interval.is_known and math.isnan(found.p_value)


def test_two_seeds_with_nearly_equal_gains_are_no_test() -> None:
    (two,) = changes(arrays({None: [51.2, 54.3], "a": [54.3, 57.39]}))
    assert two.interval.low > 0 and two.p_value < 0.05 and not two.is_tested
    (three,) = changes(arrays({None: [51.2, 54.3, 52.0], "a": [54.3, 57.39, 55.0]}))
    assert three.is_tested


def test_means_without_seeds_bring_their_deviation() -> None:
    scores = [Score("x", None, None, 68.7, 1.2, 3), Score("x", "a", None, 74.7, 1.3, 3)]
    (found,) = changes(ScoreArrays.of(scores, ["a"], ["x"]))
    assert found.score == Mean(74.7, 1.3, 3) and found.outcome == "helps"
    first_order = 100 * math.hypot(1.3 / 31.3, 1.2 * 25.3 / 31.3**2)
    assert found.error_reduction_std == pytest.approx(first_order)
    assert 0 < found.p_value < 0.01


def test_pairs_without_one_side_are_left_out() -> None:
    nan = math.nan
    assert not changes(arrays({None: [nan], "a": [60.0]}))
    grid = arrays({None: [50.0, nan], "a": [nan, nan], "b": [60.0, 61.0]})
    (found,) = changes(grid)
    assert found.source == "b"
    assert np.isnan(matrix(grid, [found], "gain")).tolist() == [[True], [False]]


def test_a_task_is_never_its_own_source() -> None:
    scores = [Score("x", None, 0, 50.0), Score("x", "x", 0, 99.0)]
    assert not changes(ScoreArrays.of(scores, ["x"], ["x"]))


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    found = adjusted(np.array([0.01, math.nan, 0.04, 0.03]))
    assert found[[0, 2, 3]] == pytest.approx([0.03, 0.04, 0.04])  # 3/1 * .01; min(3/3 * .04, 3/2 * .03)
    assert np.isnan(found[1])
    assert np.isnan(adjusted(np.array([math.nan]))).all()


def test_how_often_chance_passes_for_more_than_noise() -> None:
    assert math.isnan(chance_beyond_noise(1))
    assert 0.3 < chance_beyond_noise(2) < 0.37 and 0.18 < chance_beyond_noise(3) < 0.25
    assert chance_beyond_noise(3) == chance_beyond_noise.__wrapped__(3)
