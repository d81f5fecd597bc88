"""Analyses of whole, partial and odd studies: nothing that is missing crashes them, and it is said to be missing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spoton.errors import DataError
from spoton.study.analysis.advice import caveats
from spoton.study.analysis.analyse import analyse, method_of
from spoton.study.analysis.analysis_json import analysis_json
from spoton.study.analysis.gain import adjusted
from spoton.study.analysis.verdicts import verdicts
from spoton.study.results.study_results import Score, StudyResults
from tests.study.made import made, without


def partial() -> dict[str, StudyResults]:
    """Studies in which something is missing, by what it is."""
    whole = made()

    def fewer(**fixed: Any) -> StudyResults:
        return replace(
            whole, validation=without(whole.validation, **fixed), test=without(whole.test, **fixed)
        )

    return {
        "whole": whole,
        "one target": made(targets=("cb",)),
        "one source": made(sources=("mnli",)),
        "one seed": made(seeds=(4,)),
        "one of each": made(sources=("mnli",), targets=("cb",), seeds=(0,)),
        "no keys": made(keys=False),
        "no test": made(test=False),
        "a cell is missing": fewer(source="qqp", target="rte", seed=1),
        "a pair is missing": fewer(source="qqp", target="rte"),
        "a source is missing": fewer(source="qqp"),
        "a target has no run from scratch": fewer(source=None, target="rte"),
        "a target is missing": fewer(target="rte"),
        "a seed is missing": fewer(seed=2),
        "a target of a seed is missing": fewer(target="cb", seed=1),
        "a task is source and target": made(sources=("mnli", "rte"), targets=("rte", "cb")),
        "keys of one source are missing": replace(
            whole, source_keys={place: key for place, key in whole.source_keys.items() if place[0] != "qqp"}
        ),
        "keys of one target are missing": replace(
            whole, target_keys={place: key for place, key in whole.target_keys.items() if place[0] != "rte"}
        ),
        "no target has a key": replace(whole, target_keys={}),
        "no error is left": replace(
            whole,
            test=tuple(replace(one, score=100.0) if one.target == "cb" else one for one in whole.test),
        ),
        "nothing differs": replace(
            whole, validation=tuple(replace(one, score=50.0) for one in whole.validation),
            test=tuple(replace(one, score=50.0) for one in whole.test),
        ),
        "scores below zero": replace(whole, test=tuple(replace(one, score=one.score - 90) for one in whole.test)),
        "other methods, for some targets": replace(
            whole,
            extra={"weighted-average:average_tokens@2": (Score("cb", None, 0, 61.0),), "model-tuning": ()},
            extra_test={
                "weighted-average:average_tokens@2": (Score("cb", None, 0, 62.0),),
                "model-tuning": (Score("rte", None, 0, 95.0),),
            },
        ),
        # As in the middle of a run: each target gets the k that the other one has, and so no score.
        "each k for another target": replace(whole, extra=_one_each(61.0), extra_test=_one_each(62.0)),
    }  # fmt: skip


def _one_each(score: float) -> dict[str, tuple[Score, ...]]:
    places = ((2, "cb"), (3, "rte"))
    return {f"weighted-average:average_tokens@{k}": (Score(target, None, 0, score),) for k, target in places}


@pytest.mark.parametrize("what", partial())
def test_whatever_is_missing_the_rest_is_analysed(what: str) -> None:
    found = analysis_json(analyse(partial()[what]))
    told = json.dumps(found, allow_nan=False)  # no NaN hides in it
    assert len(found["verdicts"]) == 4
    assert all(
        one["answer"] and one["sentence"] and "nan" not in one["sentence"] for one in found["verdicts"]
    )
    assert "Infinity" not in told and "nan" not in told


@pytest.mark.parametrize(
    ("what", "missing"),
    [
        ("whole", 0), ("a cell is missing", 1), ("a pair is missing", 3), ("a source is missing", 9),
        ("a target is missing", 15), ("a target has no run from scratch", 3), ("a target of a seed is missing", 5),
    ],
)  # fmt: skip
def test_missing_cells_are_counted(what: str, missing: int) -> None:
    assert len(analysis_json(analyse(partial()[what]))["study"]["cells"]["missing"]) == missing


def test_pairs_left_out_on_purpose_are_not_missing() -> None:
    found = replace(partial()["a pair is missing"], left_out=(("qqp", "rte", "holds its rows"),))
    cells = analysis_json(analyse(found))["study"]["cells"]
    assert cells["missing"] == [] and cells["left_out"] == [["qqp", "rte", "holds its rows"]]


def test_a_study_in_which_similarity_tells_says_so() -> None:
    sources = [f"s{i}" for i in range(10)]
    found = verdicts(analyse(made(sources=sources, targets=("cb", "rte"))))
    assert found[0].answer == "yes" and found[1].answer == "yes" and found[2].answer == "yes", found


def test_points_of_the_correlation_are_source_prompts_against_the_mean_from_scratch() -> None:
    analysis = analyse(made())
    one = next(one for one in analysis.correlations["average_tokens"] if one.target == "cb")
    assert (one.n, one.tasks) == (12, 4)
    grid = analysis.reported
    base = grid.scratch[0].mean()
    for source, seed, _, y in one.points:
        score = grid.transfer[grid.sources.index(source), 0, grid.seeds.index(seed)]
        assert y == pytest.approx(100 * (score - base) / (100 - base))


def test_a_target_without_error_is_named_and_left_out_of_means() -> None:
    found = analysis_json(analyse(partial()["no error is left"]))["transfer"]
    assert found["saturated_targets"] == ["cb"]
    assert {one["targets"] for one in found["mean_error_reduction"]} == {2}


def test_rows_of_table_3() -> None:
    analysis = analyse(made())
    baseline, oracle = analysis.row("baseline"), analysis.row("oracle")
    assert baseline is not None and oracle is not None
    assert baseline.absolute.mean == 0 and oracle.kept == 1.0
    for row in analysis.rows:
        assert row.absolute.mean <= oracle.absolute.mean + 1e-9
    for metric in analysis.similarities:
        last = analysis.row("best-of-top-k", metric, 4)
        everything = analysis.row("best-by-validation")
        assert last is not None and everything is not None and last.absolute == everything.absolute
    assert [one.metric for one in analysis.rankings] == [*analysis.similarities, None]


def test_methods_with_runs_of_their_own_are_rows() -> None:
    row = analyse(partial()["other methods, for some targets"]).row("weighted-average", "average_tokens", 2)
    assert row is not None and row.targets == 1 and row.absolute.n == 1


def test_without_anything_to_compare_the_next_step_is_told() -> None:
    whole = made()
    for scores in (
        (),
        without(whole.test, source=None),
        tuple(one for one in whole.test if one.source is None),
    ):
        with pytest.raises(DataError, match="Let it run"):
            analyse(replace(whole, validation=scores, test=()))


@pytest.mark.parametrize("name", ["a@b", "weighted-average:cosine@3"])
def test_names_of_methods_that_cannot_be_read(name: str) -> None:
    with pytest.raises(DataError, match="expected NAME"):
        method_of(name)


def test_names_of_methods() -> None:
    assert method_of("model-tuning") == ("model-tuning", None, None)
    assert method_of("weighted-average@3") == ("weighted-average", None, 3)
    assert method_of("multi-task-mixture:maximum_token@12") == ("multi-task-mixture", "maximum_token", 12)


def test_model_tuning_is_compared_on_the_targets_that_have_it() -> None:
    one = verdicts(analyse(partial()["other methods, for some targets"]))[3]
    assert one.answer == "too little to say" and "Over 1 target model tuning scores 95.0" in one.sentence
    tuned = {"model-tuning": tuple(Score(target, None, 0, 95.0) for target in ("cb", "rte", "cr"))}
    all_three = verdicts(analyse(replace(made(), extra=tuned, extra_test=tuned)))[3]
    assert all_three.answer in ("closer", "no closer") and "Over 3 targets" in all_three.sentence
    assert "% of the gap" in all_three.sentence


def test_a_prompt_ahead_of_model_tuning_does_not_close_269_percent_of_a_gap() -> None:
    level = {"model-tuning": tuple(Score(target, None, 0, 62.0) for target in ("cb", "rte", "cr"))}
    one = verdicts(analyse(replace(made(), extra=level, extra_test=level)))[3]
    assert one.answer == "reached"
    assert "Transfer is ahead of model tuning by" in one.sentence and "gap" not in one.sentence


def test_keys_without_a_correlation_are_not_missing_keys() -> None:
    studies = partial()
    for what in ("nothing differs", "one of each"):
        one = verdicts(analyse(studies[what]))[1]
        assert one.answer == "unknown" and "A correlation needs three runs" in one.sentence
    for what in ("no keys", "no target has a key"):
        assert "There are no keys" in verdicts(analyse(studies[what]))[1].sentence


def test_similarity_of_a_source_without_key_is_unknown() -> None:
    analysis = analyse(partial()["keys of one source are missing"])
    assert all(one.tasks == 3 for one in analysis.correlations["average_tokens"])
    advice = analysis_json(analysis)["targets"]["cb"]["sources"]
    assert next(row for row in advice if row["source"] == "qqp")["similarity"] is None
    assert not math.isnan(analysis.rankings[0].ndcg.mean)


def test_it_is_told_where_no_prompt_is_worth_its_cost() -> None:
    best = max(
        analyse(made()).reported.cell(source, "cb").mean for source in (None, "mnli", "qqp", "squad", "sst2")
    )
    found = analyse(made(classical={"cb": best + 0.1, "rte": 40.0}))
    (told,) = [line for line in caveats(found) if "TF-IDF" in line]
    assert f"cb ({best + 0.1:.1f} against {best:.1f})" in told and "rte" not in told
    assert not [line for line in caveats(analyse(made(classical={"cb": best - 0.1}))) if "TF-IDF" in line]
    rows = {row["task"]: row["classical"] for row in analysis_json(found)["candidates"]}
    assert rows == {"cb": pytest.approx(best + 0.1), "rte": 40.0, "cr": None}


def test_pairs_of_single_runs_count_for_no_verdict() -> None:
    """Twelve pairs and more, of which one has the two seeds that a verdict takes."""
    whole = made(("a", "b", "c", "d", "e"), ("x", "y", "z"), (0, 1))
    kept = {(None, "x"), ("a", "x")}
    results = replace(
        whole,
        **{
            split: tuple(
                one for one in getattr(whole, split) if one.seed == 0 or (one.source, one.target) in kept
            )
            for split in ("validation", "test")
        },
    )
    told = verdicts(analyse(results))[0]
    assert told.answer == "too little to say" and "1 pair (at least 12)" in told.sentence
    assert verdicts(analyse(whole))[0].answer != "too little to say"


def test_pairs_of_two_seeds_do_not_enter_the_correction_of_the_others() -> None:
    whole = made(targets=("cb", "rte"))
    scratch = {one.seed: one.score for one in whole.test if one.target == "rte" and one.source is None}
    # On rte there are two seeds, which gain nearly the same: p is tiny, and no test.
    few = [Score("rte", None, seed, scratch[seed]) for seed in (0, 1)]
    few += [Score("rte", one, n, scratch[n] + 20 + 1e-4 * n) for one in whole.sources for n in (0, 1)]
    found = analyse(replace(whole, test=(*without(whole.test, target="rte"), *few)))
    assert [one.is_tested for one in found.changes] == [True, False] * 4
    p = np.array([one.p_value for one in found.changes])
    assert p[1::2].max() < 1e-5
    assert found.p_adjusted[::2] == pytest.approx(adjusted(p[::2]))
    assert all(map(math.isnan, found.p_adjusted[1::2]))
