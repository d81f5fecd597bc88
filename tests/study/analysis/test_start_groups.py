"""Related sources, unrelated ones and noise are told apart, paired by target and seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.start_groups import DIFFERENCE, StartGroup, members, start_groups
from spoton.study.analysis.verdicts import TOO_LITTLE, verdicts
from spoton.study.results.score_arrays import ScoreArrays
from spoton.study.results.study_results import Score, StudyResults, TransferRun

TARGETS = ("cb", "rte", "cr")
FAMILIES = {"cb": "nli", "rte": "nli", "cr": "sentiment", "mnli": "nli", "sst2": "sentiment", "trec": "topic"}
# From scratch 60; a related source gives 70, an unrelated one 62, noise 55; seed 1 has one point more throughout.
GIVES = {None: 60.0, "related": 70.0, "unrelated": 62.0, "noise": 55.0}


def run(*scores: float) -> TransferRun:
    looks = tuple({"step": float(10 * i), "validation": score} for i, score in enumerate(scores))
    return TransferRun(10 * (len(scores) - 1), looks)


def results(**changes: Any) -> StudyResults:
    scores, noise, runs, others = [], [], {}, {}
    for target in TARGETS:
        for seed in (0, 1):
            scores.append(Score(target, None, seed, GIVES[None] + seed))
            noise.append(Score(target, None, seed, GIVES["noise"] + seed))
            others["scratch", target, seed] = run(40, 50, 60)
            others["noise", target, seed] = run(30, 35, 40)
            for source in ("mnli", "sst2", "trec"):
                kind = "related" if FAMILIES[source] == FAMILIES[target] else "unrelated"
                scores.append(Score(target, source, seed, GIVES[kind] + seed))
                runs[source, target, seed] = run(50, 70, 70) if kind == "related" else run(40, 50, 58)
    facts: dict[str, Any] = {
        "sources": ("mnli", "sst2", "trec"), "targets": TARGETS, "validation": tuple(scores), "test": tuple(scores),
        "families": FAMILIES, "extra": {"noise": tuple(noise)}, "extra_test": {"noise": tuple(noise)}, "runs": runs,
        "other_runs": others,
    }  # fmt: skip
    return StudyResults(**facts | changes)


def groups(found: StudyResults) -> dict[str, StartGroup]:
    grid = ScoreArrays.of(found.reported, found.sources, found.targets)
    return {group.name: group for group in start_groups(found, grid)}


def test_level_is_paired_by_target_and_seed() -> None:
    found = groups(results())
    gains = {name: group.gain.mean for name, group in found.items()}
    assert gains == {"related sources": 10, "unrelated sources": 2, "noise": -5, DIFFERENCE: 8}
    assert {group.gain.targets for group in found.values()} == {3}
    assert {group.gain.runs for group in found.values()} == {6}
    assert found[DIFFERENCE].gain.interval.to_json() == [8, 8]  # nothing varies


def test_speed_is_against_the_run_from_scratch() -> None:
    found = groups(results())
    # 60 is reached between step 0 (50) and step 10 (70), where scratch takes 20 steps.
    assert found["related sources"].steps.mean == pytest.approx(5 / 20)
    assert found["related sources"].arrived.mean == 1
    assert found["related sources"].area.mean == pytest.approx(np.mean([10, 20, 20, 10]), abs=2.5)
    assert found["unrelated sources"].arrived.mean == found["noise"].arrived.mean == 0
    assert np.isnan(found["noise"].steps.mean) and found["noise"].area.mean < 0


def test_sources_that_learned_nothing_are_in_no_group() -> None:
    found = results(learned_sources={"mnli": False, "sst2": True})
    assert members(found, "related sources", "cb") == []
    assert members(found, "unrelated sources", "cb") == ["sst2", "trec"]
    assert groups(found)["related sources"].gain.targets == 1


def test_without_families_there_are_no_groups_of_sources() -> None:
    assert set(groups(results(families={}))) == {"noise"}
    assert groups(results(families={}, extra={}, extra_test={})) == {}
    assert len(verdicts(analyse(results(families={}, extra={}, extra_test={})))) == 4


def test_the_verdict_rests_on_the_difference() -> None:
    verdict = verdicts(analyse(results()))[-1]
    assert verdict.question.startswith("Is it the relation") and verdict.answer == "yes"
    assert "related sources +10.0 points" in verdict.sentence and "noise -5.0 points" in verdict.sentence
    assert (
        "ahead of unrelated ones by +8.0 points (95 %: +8.0 to +8.0; 3 targets, 6 pairs of target and seed)"
        in verdict.sentence
    )
    assert "100% of runs reach" in verdict.sentence and "after 25% of the steps" in verdict.sentence


@pytest.mark.parametrize(("give", "answer"), [(70.0, "mixed"), (80.0, "no")])
def test_unrelated_sources_that_are_as_good_deny_it(give: float, answer: str) -> None:
    found = results()
    worse = [
        Score(one.target, one.source, one.seed, give + (i % 3 - 1) * (answer == "mixed"))
        if one.source and FAMILIES[one.source] != FAMILIES[one.target]
        else one
        for i, one in enumerate(found.test)
    ]
    assert verdicts(analyse(results(test=tuple(worse), validation=tuple(worse))))[-1].answer == answer


def test_three_targets_that_differ_are_not_enough_to_say_yes() -> None:
    ahead = {
        "cb": 1.0,
        "rte": 2.0,
        "cr": 12.0,
    }  # the bootstrap leaves out zero, and t over three means does not
    scores = tuple(
        Score(one.target, one.source, one.seed, GIVES["unrelated"] + ahead[one.target])
        if one.source and FAMILIES[one.source] == FAMILIES[one.target]
        else one
        for one in results().test
    )
    found = results(test=scores, validation=scores)
    effect = groups(found)[DIFFERENCE].gain
    assert effect.interval.low > 0 > effect.by_target.low
    verdict = verdicts(analyse(found))[-1]
    assert verdict.answer == "mixed" and "Student's t over the targets' means: -" in verdict.sentence


def test_two_targets_are_too_little() -> None:
    few = {"targets": TARGETS[:2], "extra": {}, "extra_test": {}, "other_runs": {}, "runs": {}}
    scores = tuple(one for one in results().test if one.target in TARGETS[:2])
    verdict = verdicts(analyse(results(**few, test=scores, validation=scores)))[-1]
    assert verdict.answer == TOO_LITTLE and "2 targets (at least 3)" in verdict.sentence


def test_one_seed_is_too_little() -> None:
    scores = tuple(one for one in results().test if one.seed == 0)
    verdict = verdicts(analyse(results(test=scores, validation=scores)))[-1]
    assert (
        verdict.answer == TOO_LITTLE
        and "3 pairs of target and seed (at least 2 seeds a target)" in verdict.sentence
    )


def test_a_target_without_relatives_makes_no_difference() -> None:
    scores = tuple(one for one in results().test if one.source in (None, "trec"))
    verdict = verdicts(analyse(results(sources=("trec",), test=scores, validation=scores, runs={})))[-1]
    assert verdict.answer == "unknown" and "No target has sources of its own family" in verdict.sentence
