"""Intervals: Wilson where all are right, a bootstrap that says when it collapses, pairs that stay together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spoton.evaluation.intervals import (
    difference_intervals,
    hierarchical,
    mcnemar,
    newcombe,
    over_targets,
    paired_gain,
    score_intervals,
    unpaired_gain,
    wilson,
)
from spoton.tasks.example import Example

YES = Example("", "yes")


def test_all_right_is_not_certain() -> None:
    found = score_intervals(["accuracy", "macro_f1"], ["yes"] * 29, [YES] * 29, ["no", "yes"])
    # Wilson's lower end where all n are right is n / (n + z^2).
    assert found["accuracy"].to_json() == pytest.approx([100 * 29 / (29 + stats.norm.ppf(0.975) ** 2), 100.0])
    assert found["macro_f1"].to_json() is None
    assert "29 rows" in found["macro_f1"].text() and "collapses" in found["macro_f1"].text()


def test_intervals_of_several_metrics_and_of_their_mean() -> None:
    said = ["yes"] * 80 + ["no"] * 20
    found = score_intervals(["mean", "accuracy", "f1"], said, [YES] * 100, ["no", "yes"])
    assert found["accuracy"].method == "Wilson" and found["f1"].method == "bootstrap"
    assert found["accuracy"].to_json() == pytest.approx([71.1, 86.7], abs=0.1)
    assert found["accuracy"].low < found["mean"].low < found["mean"].high < found["f1"].high
    assert score_intervals(["mean", "f1"], said, [YES] * 100, ["no", "yes"])["f1"] == found["f1"]


def test_rows_of_one_question_are_drawn_together() -> None:
    pairs = [Example("", "yes", question=str(i // 2)) for i in range(8)]
    # Every question has one right and one wrong answer: whichever are drawn, half are right.
    collapsed = score_intervals(["accuracy"], ["yes", "no"] * 4, pairs)["accuracy"]
    assert collapsed.method == "bootstrap" and not collapsed.is_known
    mixed = score_intervals(["accuracy"], ["yes"] * 4 + ["no"] * 4, pairs)["accuracy"]
    assert mixed.is_known and mixed.low < 50 < mixed.high


def test_one_row_has_no_bootstrap() -> None:
    assert "one row" in score_intervals(["macro_f1"], ["yes"], [YES], ["no", "yes"])["macro_f1"].text()


def test_pairs_are_compared_seed_by_seed() -> None:
    """Seeds that differ by 20 points and gain 2 each: paired the gain is sure, unpaired it is not."""
    before, after = np.array([50.0, 60.0, 70.0]), np.array([52.0, 61.9, 72.1])
    paired = paired_gain(after - before)
    low, high = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert paired.to_json() == pytest.approx([low, high]) and paired.low > 0
    unpaired = unpaired_gain(after.mean(), after.std(ddof=1), 3, before.mean(), before.std(ddof=1), 3)
    low, high = stats.ttest_ind(after, before, equal_var=False).confidence_interval(0.95)
    assert unpaired.to_json() == pytest.approx([low, high]) and unpaired.low < 0


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, math.nan], [1.0, 1.0]])
def test_gains_without_an_interval_say_why(differences: list[float]) -> None:
    found = paired_gain(np.array(differences))
    assert found.to_json() is None and found.problem


def test_means_without_deviation_have_no_interval() -> None:
    assert not unpaired_gain(60, math.nan, 3, 50, 1.0, 3).is_known
    assert not unpaired_gain(60, 1.0, 1, 50, 1.0, 3).is_known
    assert wilson(0, 5).low == 0


def test_newcombes_interval_is_that_of_his_table() -> None:
    """Newcombe 1998, Statistics in Medicine 17: 2635-2650, table II, method 10: 36, 12, 2, 0 of 50 pairs."""
    assert newcombe(36, 12, 2, 0).to_json() == pytest.approx([5.69, 34.04], abs=0.005)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (3, 3, 1.0), (5, 0, 0.03125), (1, 7, 0.0390625)]
)
def test_mcnemars_test_with_the_mid_p(gained: int, lost: int, p: float) -> None:
    """By hand: (1, 7) has 2 * (1 + 8) / 256 less half of both 8 / 256."""
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_what_is_hard_for_both_widens_nothing() -> None:
    """Two sets of answers that differ on five rows of forty: in pairs the gain is sure, apart it is not."""
    before = ["yes"] * 20 + ["no"] * 20
    after = ["yes"] * 25 + ["no"] * 15
    rows = [YES] * 40
    found = difference_intervals(["accuracy", "macro_f1"], before, after, rows, ["no", "yes"])
    assert found["accuracy"].low > 0 and found["macro_f1"].low > 0
    apart = (
        score_intervals(["accuracy"], before, rows)["accuracy"],
        score_intervals(["accuracy"], after, rows)["accuracy"],
    )
    assert apart[0].high > apart[1].low


def test_a_paired_bootstrap_draws_the_same_rows_for_both() -> None:
    answers = ["yes", "no", "no", "yes"] * 10
    rows = [Example("", target) for target in ["yes", "no", "yes", "no"] * 10]
    same = difference_intervals(["macro_f1", "accuracy"], answers, answers, rows, ["no", "yes"])
    assert not same["macro_f1"].is_known and "differ by the same amount" in same["macro_f1"].problem
    # The bootstrap collapses where answers are alike; Newcombe's interval says how little forty rows show.
    assert same["accuracy"].low < -4 and same["accuracy"].high > 4
    asked = [Example("", row.target, question=str(i // 2)) for i, row in enumerate(rows)]
    other = difference_intervals(["accuracy"], answers, ["yes"] * 40, asked, ["no", "yes"])["accuracy"]
    assert other.method == "paired bootstrap"


def test_the_hierarchical_bootstrap_draws_targets_first() -> None:
    rng = np.random.default_rng(1)
    # Targets differ by far more than seeds: the interval is about that of the targets' means.
    centers = rng.normal(5, 4, size=(12, 1))
    values = centers + rng.normal(0, 0.1, size=(12, 3))
    found = hierarchical(values)
    half = 1.96 * values.mean(axis=1).std(ddof=1) / np.sqrt(12)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.25)
    assert found.low < values.mean() < found.high
    assert hierarchical(values) == found  # the same draws each time
    # Where seeds vary and targets do not, it is wider than nothing: seeds are drawn, too.
    noisy = hierarchical(np.tile(rng.normal(0, 4, size=(1, 3)), (12, 1)))
    assert noisy.high - noisy.low > 0.5


@pytest.mark.parametrize(("targets", "covers"), [(3, 83), (11, 94)])
def test_the_hierarchical_bootstrap_is_too_narrow_with_few_targets(targets: int, covers: int) -> None:
    """As docs/how-to/analyse-a-study.md says; 600 draws, whose standard error is 1 to 1.5 points."""
    rng = np.random.default_rng(0)
    gains = rng.normal(0, 3, (600, targets, 1)) + rng.normal(0, 2, (600, targets, 3))
    inside = [found.low <= 0 <= found.high for found in map(hierarchical, gains)]
    assert 100 * np.mean(inside) == pytest.approx(covers, abs=3)


@pytest.mark.parametrize("targets", [3, 11])
def test_t_over_targets_covers_what_it_says(targets: int) -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(0, 3, (600, targets, 1)) + rng.normal(0, 2, (600, targets, 3))
    inside = [found.low <= 0 <= found.high for found in map(over_targets, gains)]
    assert 100 * np.mean(inside) == pytest.approx(95, abs=3)


def test_t_over_targets_is_that_of_their_means() -> None:
    values = np.array([[1.0, 3.0], [4.0, np.nan], [np.nan, np.nan], [6.0, 8.0]])
    found = over_targets(values)
    half = 4.302653 * np.std([2, 4, 7], ddof=1) / np.sqrt(3)
    assert found.to_json() == pytest.approx([13 / 3 - half, 13 / 3 + half], abs=1e-4)
    assert not over_targets(values[:1]).is_known and not over_targets(np.ones((3, 2))).is_known


def test_the_hierarchical_bootstrap_needs_three_targets() -> None:
    values = np.array([[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]])
    found = hierarchical(values)
    assert not found.is_known and "3 targets" in found.problem
    assert hierarchical(np.vstack([values, [4.0, 4.0]])).is_known
