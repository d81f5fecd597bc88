"""Speed of transfer: crossings, areas, intervals and the sentence."""

from __future__ import annotations

import numpy as np
import pytest

from spoton.transfer.speed import MeanInterval, area_between, speed, steps_to_reach


def history(*scores: float, every: int = 10, first: int = 10) -> list[dict[str, float]]:
    return [{"step": float(first + i * every), "validation": score} for i, score in enumerate(scores)] + [
        {"step": 1.0, "loss": 2.0}
    ]


def test_a_crossing_is_interpolated() -> None:
    steps, scores = np.array([10.0, 20, 30]), np.array([40.0, 60, 60])
    assert steps_to_reach(steps, scores, 50) == 15
    assert steps_to_reach(steps, scores, 60) == 20
    assert steps_to_reach(steps, scores, 30) == 10
    assert steps_to_reach(steps, scores, 61) is None


def test_the_area_is_the_mean_gap_over_common_steps() -> None:
    flat = np.array([0.0, 40]), np.array([50.0, 50])
    assert area_between(flat, (np.array([20.0, 40]), np.array([60.0, 60]))) == pytest.approx(10)
    assert area_between(flat, (np.array([0.0, 40]), np.array([50.0, 70]))) == pytest.approx(10)
    assert area_between(flat, (np.array([40.0, 80]), np.array([90.0, 90]))) == 0


def test_the_probe_counts_and_a_fall_does_not() -> None:
    (scratch, transfer) = history(40, 50, 60, 55), history(60, 62, first=0)
    found = speed([scratch], [transfer], [20])
    assert found is not None and found.transfer_steps is not None
    assert found.scratch_steps == 30
    assert found.transfer_steps.mean == 20 and found.transfer_steps.low is None
    assert "after 20 steps; tuning from scratch took 30" in found.sentence()


def test_every_seed_pays_for_its_own_ranking() -> None:
    found = speed([history(40, 60)] * 2, [history(60, 60, first=0)] * 2, [15, 19])
    assert found is not None and found.transfer_steps is not None
    assert found.transfer_steps == MeanInterval.of([15.0, 19.0])


def test_seeds_give_an_interval_and_those_that_never_arrive_are_counted() -> None:
    scratch = [history(40, 60), history(40, 60), history(40, 60)]
    found = speed(scratch, [history(60, 60), history(50, 70), history(40, 50)], [0, 0, 0])
    assert found is not None and found.transfer_steps is not None
    assert found.reached == 2 and found.transfer_steps == MeanInterval.of([10.0, 15.0])
    assert "in 2 of 3 seeds" in found.sentence()
    # t(0.975, 2) = 4.3027; areas 10, 10 and -5 points
    assert found.area.mean == pytest.approx(5) and found.area.high is not None
    assert found.area.high - found.area.mean == pytest.approx(4.30265 * 75**0.5 / 3**0.5, rel=1e-4)


def test_a_transfer_that_never_arrives_says_so() -> None:
    found = speed([history(40, 60)], [history(40, 50)], [0])
    assert found is not None and found.transfer_steps is None and "did not reach" in found.sentence()


def test_without_evaluations_nothing_is_said() -> None:
    assert speed([history()], [history(50)], [0]) is None
    assert speed([], [], []) is None


def test_a_start_that_tuning_does_not_improve_is_no_speed() -> None:
    for before in ((0.0, 0.0), (60.0, 55.0)):
        found = speed([history(*before, first=0)], [history(60, 62, first=0)], [20])
        assert found is not None and found.scratch_steps == 0
        assert "did not improve on its start" in found.sentence() and "took 0" not in found.sentence()
    risen = speed([history(0, 5, first=0)], [history(0, 5, first=0)], [0])
    assert risen is not None and "tuning from scratch took 10" in risen.sentence()
