"""Halving, replayed on recorded looks, by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.analysis_json import analysis_json
from spoton.study.analysis.replay import replay, replays
from spoton.study.report import write_report
from spoton.study.results.collect import results_in
from spoton.study.results.study_results import StudyResults, TransferRun
from spoton.tuning.halving import Halving
from tests.study.made import made


def went(*validation: float, dropped: int | None = None) -> TransferRun:
    """A look before the first step and one after every ten; the best is kept."""
    looks = tuple({"step": 10.0 * i, "validation": score} for i, score in enumerate(validation))
    best = max(looks, key=lambda look: look["validation"])
    return TransferRun(10 * (len(validation) - 1), looks, dropped, int(best["step"]))


# After 10 steps a and b lead; in the end c is better than both.
RUNS = {
    "a": went(40, 60, 60, 60, 66), "b": went(40, 55, 65, 65, 65),
    "c": went(40, 50, 60, 70, 80), "d": went(40, 45, 45, 45, 45),
}  # fmt: skip


def study(**runs: TransferRun) -> StudyResults:
    results = made(sources=tuple("abcd"), targets=("x",), seeds=(0,))
    scores = {"a": 61.0, "b": 62.0, "c": 75.0, "d": 40.0, None: 50.0}
    test = tuple(replace(one, score=scores[one.source]) for one in results.test)
    best = {source: max(look["validation"] for look in run.looks) for source, run in runs.items()}
    validation = tuple(replace(one, score=best.get(str(one.source), 0.0)) for one in results.validation)
    return replace(
        results, validation=validation, test=test,
        runs={(source, "x", 0): run for source, run in runs.items()},
    )  # fmt: skip


def test_one_rung_by_hand() -> None:
    found = replay(study(**RUNS), Halving(rungs=[10]))
    assert (found.groups, found.cells, found.dropped, found.same) == (1, 4, 2, 0)
    assert found.saved == pytest.approx(2 * 30 / 160)
    assert found.change.mean == 61.0 - 75.0  # a (66 on validation) instead of c


def test_a_later_rung_keeps_the_right_one() -> None:
    found = replay(study(**RUNS), Halving(rungs=[30]))
    assert (found.dropped, found.same, found.change.mean) == (2, 1, 0.0)
    assert found.saved == pytest.approx(2 * 10 / 160)


def test_two_rungs_leave_one() -> None:
    found = replay(study(**RUNS), Halving(rungs=[10, 20]))
    assert found.dropped == 3
    assert found.saved == pytest.approx((2 * 30 + 20) / 160)
    assert found.change.mean == 62.0 - 75.0  # b leads after 20 steps


def test_who_stopped_before_the_rung_saves_nothing() -> None:
    found = replay(study(**RUNS | {"d": went(40, 45)}), Halving(rungs=[20]))
    assert found.dropped == 1 and found.saved == pytest.approx(20 / 130)


def test_rungs_are_looks_of_the_study() -> None:
    assert [one.halving.rungs for one in replays(study(**RUNS))] == [[20], [10], [10, 20]]
    assert [one.halving.rungs for one in replays(study(**{name: went(1, 2, 3) for name in "ab"}))] == [[10]]


def test_ties_are_broken_by_the_loss_of_the_prompt_that_was_kept() -> None:
    """A recipe may choose by the loss, so the evaluation with the best score need not be the kept one."""
    looks = (
        {"step": 0.0, "validation": 40.0, "validation_loss": 2.0},
        {"step": 10.0, "validation": 70.0, "validation_loss": 0.9},
        {"step": 20.0, "validation": 60.0, "validation_loss": 0.3},
    )
    assert TransferRun(20, looks, best_step=20).kept_loss == 0.3
    assert math.isnan(TransferRun(20, looks).kept_loss)
    results = study(a=TransferRun(20, looks, best_step=20), b=TransferRun(20, looks, best_step=10))
    assert analyse(results).choices.loss[:2, 0, 0].tolist() == [0.3, 0.9]
    # Before and after it is a: b has the larger loss.
    assert replay(results, Halving(rungs=[10])).change.mean == 0.0


def test_what_was_halved_or_has_no_rival_is_not_replayed() -> None:
    assert replays(study(**RUNS | {"d": went(40, 45, dropped=10)})) == ()
    assert replays(study(a=RUNS["a"])) == () and replays(study()) == ()
    assert math.isnan(replay(study(), Halving(rungs=[10])).saved)


def test_the_effect_is_in_the_analysis_and_the_report(tmp_path: Path) -> None:
    analysis = analyse(study(**RUNS))
    found = analysis_json(analysis)["halving"]
    assert found["dropped"] == [] and found["replayed"][1]["steps_saved"] == 0.375
    write_report(analysis, tmp_path / "report.html", files=False)
    assert "| 10 | 2 of 4 | 38 % | 0 of 1 | \N{MINUS SIGN}14.00 |" in (tmp_path / "report.md").read_text()


def test_dropped_cells_are_marked_everywhere(tmp_path: Path) -> None:
    analysis = analyse(study(**RUNS | {"d": went(40, 45, dropped=10)}))
    found = analysis_json(analysis)
    assert found["halving"]["dropped"] == [{"source": "d", "target": "x", "seed": 0, "steps": 10}]
    assert [one["source"] for one in found["transfer"]["pairs"] if one.get("dropped_seeds") == [0]] == ["d"]
    write_report(analysis, tmp_path / "report.html")
    markdown = (tmp_path / "report.md").read_text()
    assert "1 transfer cell was dropped" in markdown and "| d | x | 40.0\N{DAGGER} |" in markdown
    assert "\N{DAGGER}" in (tmp_path / "report.html").read_text()
    json.dumps(found, allow_nan=False)


def test_runs_are_kept(tmp_path: Path) -> None:
    before = study(**RUNS)
    before.save(tmp_path)
    assert results_in(tmp_path).runs == before.runs
