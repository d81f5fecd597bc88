"""Gains of every way to choose a start, by target, and means with and without targets that nothing had learned."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.by_target import BY_VALIDATION, NEAREST, ORACLE, OTHER_SEEDS, ways_by_target
from spoton.study.results.study_results import Score
from tests.study.analysis.test_start_groups import TARGETS, results
from tests.study.made import made


def test_ways_are_those_of_table_3() -> None:
    analysis = analyse(made())
    ways = ways_by_target(analysis)
    rows = {
        NEAREST: analysis.row("best-of-top-k", analysis.metric, 1), BY_VALIDATION: analysis.row("best-by-validation"),
        ORACLE: analysis.row("oracle"), OTHER_SEEDS: analysis.row("oracle-of-other-seeds"),
    }  # fmt: skip
    for name, row in rows.items():
        assert row is not None
        assert ways.overall[name].mean == pytest.approx(row.absolute.mean)
        assert np.mean([one.mean for one in ways.gains[name]]) == pytest.approx(row.absolute.mean)
    assert ways.overall[OTHER_SEEDS].mean <= ways.overall[ORACLE].mean


def test_groups_of_starts_are_ways_with_their_speed() -> None:
    ways = ways_by_target(analyse(results()))
    assert [one.mean for one in ways.gains["related sources"]] == [10, 10, 10]
    assert ways.overall["noise"].mean == -5
    assert [one.mean for one in ways.arrived] == [1, 1, 1] and ways.steps[0].mean == pytest.approx(
        0.25
    )  # 60 lies between 50 and 70


def test_targets_that_scratch_did_not_learn_are_left_out_of_the_second_mean() -> None:
    whole = made()
    found = replace(whole, majority={"cb": 50.0, "rte": 99.0, "cr": 50.0})
    ways = ways_by_target(analyse(found))
    assert ways.learned == (True, False, True)
    assert ways.overall[ORACLE].targets == 3 and ways.where_learned[ORACLE].targets == 2
    assert ways.where_learned[ORACLE].mean == pytest.approx(
        np.mean([one.mean for one, knows in zip(ways.gains[ORACLE], ways.learned, strict=True) if knows])
    )


@pytest.mark.parametrize("scores", [(61.0, 61.0, 61.0), (61.0,)])
def test_no_deviation_over_seeds_is_not_known_to_be_no_noise(scores: tuple[float, ...]) -> None:
    other = [one for one in made().test if (one.target, one.source) != ("cb", None)]
    own = tuple(Score("cb", None, seed, score) for seed, score in enumerate(scores))
    above, below = (
        ways_by_target(analyse(replace(made(), test=(*own, *other), majority={"cb": floor}))).learned[0]
        for floor in (60.0, 61.0)
    )
    assert above is None and below is False


def test_without_keys_families_or_seeds_the_rest_is_there() -> None:
    ways = ways_by_target(analyse(made(keys=False, seeds=(4,))))
    assert set(ways.gains) == {BY_VALIDATION, ORACLE}
    assert all(np.isnan(one.mean) for one in ways.arrived)
    json.dumps(ways.to_json(), allow_nan=False)


def test_targets_keep_the_order_of_the_study() -> None:
    assert ways_by_target(analyse(results())).targets == TARGETS
