"""`spoton study import` and what `analyse` makes of it: the small tables that went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from spoton.study.analysis import similarities
from spoton.study.analysis.analyse import analyse
from tests.cli.conftest import Run
from tests.study.made import made

ITSELF = "source,target,score\nnone,A,50\nA,A,99\nB,A,40\nnone,B,50\nA,B,40\nB,B,99\n"


@pytest.fixture
def import_table(run: Run, tmp_path: Path) -> Any:
    def imported(text: str, *options: object, code: int = 0) -> Any:
        (tmp_path / "scores.csv").write_text(text)
        ran = run("study", "import", tmp_path / "scores.csv", "--out", tmp_path / "study", "--json", *options)
        assert ran.code == code, ran.stderr
        return ran

    return imported


def test_a_task_is_never_advised_to_itself(import_table: Any, run: Run, tmp_path: Path) -> None:
    import_table(ITSELF)
    found = run("study", "analyse", tmp_path / "study", "--json").document
    assert [(one["source"], one["target"]) for one in found["transfer"]["pairs"]] == [("A", "B"), ("B", "A")]
    assert {one["error_reduction"] for one in found["transfer"]["mean_error_reduction"]} == {-20.0}
    told = found["verdicts"][0]
    assert "in 0 of 2 pairs" in told["sentence"] and "-20.0 %" in told["sentence"]
    assert found["targets"]["A"]["advice"].startswith("No source scores higher than from scratch")
    assert [row["source"] for row in found["targets"]["A"]["sources"]] == ["B"]
    oracle = next(row for row in found["retrieval"]["rows"] if row["method"] == "oracle")
    assert oracle["absolute"]["mean"] == -10.0


def test_two_sources_and_nine_rows_are_too_little_to_say(import_table: Any, run: Run, tmp_path: Path) -> None:
    rows = [
        f"{source},{target},{60 + i}\n" for target in "xyz" for i, source in enumerate(("none", "a", "b"))
    ]
    (tmp_path / "keys").mkdir()
    for name in "abxyz":
        np.save(tmp_path / "keys" / f"{name}.npy", np.random.default_rng(ord(name)).standard_normal((3, 8)))
    import_table("source,target,score\n" + "".join(rows), "--keys", tmp_path / "keys")
    first, similar, retrieval, tuning = run("study", "analyse", tmp_path / "study", "--json").document[
        "verdicts"
    ]
    assert first["answer"] == retrieval["answer"] == "too little to say"
    assert "2 sources (at least 5)" in first["sentence"] and "6 pairs (at least 12)" in first["sentence"]
    assert "seeds (at least 2)" in first["sentence"] and "6 pairs (at least 12)" in retrieval["sentence"]
    assert (
        similar["answer"] == tuning["answer"] == "unknown"
    )  # two points give no correlation; no model was tuned


def test_what_is_missing_is_listed_by_import_and_by_analyse(
    import_table: Any, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    for name in "ax":
        np.save(tmp_path / "keys" / f"{name}.npy", np.ones((3, 8)))
    table = "source,target,score\nnone,x,50\nnone,y,50\na,x,60\na,y,61\nb,x,55\n"
    ran = import_table(table, "--keys", tmp_path / "keys")
    assert ran.document["missing_pairs"] == [["b", "y"]] and ran.document["missing_keys"] == ["b", "y"]
    assert "Missing scores of b to y" in ran.stderr and "Missing keys of b, y" in ran.stderr
    found = run("study", "analyse", tmp_path / "study", "--json").document
    assert found["study"]["cells"]["missing_pairs"] == [["b", "y"]] and found["study"]["missing_keys"] == [
        "b",
        "y",
    ]
    assert found["retrieval"]["targets"] == ["x"]
    nearest = next(row for row in found["retrieval"]["rows"] if row["method"] == "best-of-top-k")
    assert nearest["targets"] == 1 and nearest["absolute"]["mean"] == 10.0
    assert any("There are no keys of b, y" in line for line in found["caveats"])
    assert "b to y" in run("study", "analyse", tmp_path / "study").stdout


def test_a_baseline_that_is_a_mean_is_compared_and_said_to_be_unpaired(
    import_table: Any, run: Run, tmp_path: Path
) -> None:
    table = "source,target,seed,score,std,n\nnone,x,,50,2,3\na,x,0,60,,\na,x,1,62,,\na,x,2,64,,\n"
    import_table(table)
    ran = run("study", "analyse", tmp_path / "study", "--json")
    (pair,) = ran.document["transfer"]["pairs"]
    assert pair["gain"] == 12.0 and pair["compared"] == "Welch" and pair["p_value"] is not None
    baseline, oracle = ran.document["retrieval"]["rows"][:2]
    assert baseline["average"]["mean"] == 50.0 and oracle["absolute"] == {"mean": 12.0, "std": 2.0, "n": 3}
    assert (
        ran.document["study"]["unpaired_targets"] == ["x"] and ran.document["study"]["cells"]["missing"] == []
    )
    assert any("unpaired" in line for line in ran.document["caveats"])
    assert "nan" not in run("study", "analyse", tmp_path / "study").stdout


def test_what_cannot_be_chosen_has_a_reason(import_table: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("source,target,score\nnone,x,50\na,x,60\n")
    import_table("source,target,score\nnone,x,50\nb,x,60\n", "--test", tmp_path / "test.csv")
    told = run("study", "analyse", tmp_path / "study").stdout
    assert "nan" not in told and "unknown points" not in told
    assert "No source can be chosen by validation" in told


def test_sources_that_validation_cannot_tell_apart_are_all_advised(
    import_table: Any, run: Run, tmp_path: Path
) -> None:
    import_table("source,target,score\nnone,x,50\na,x,60\nb,x,60\nc,x,55\n")
    advice = run("study", "analyse", tmp_path / "study", "--json").document["targets"]["x"]["advice"]
    assert advice.startswith("Try a (+10.0)") and "Validation does not tell it from b." in advice


def test_a_report_shows_its_progress(import_table: Any, run: Run, tmp_path: Path) -> None:
    import_table(ITSELF)
    ran = run("study", "report", tmp_path / "study", "--out", tmp_path / "r.html", "--no-files", "--json")
    assert ran.code == 0 and ran.document["files"]
    lines = ran.stderr.splitlines()
    assert lines[:2] == ["analysing  study 0/1", "analysing  study 1/1"]
    assert lines[2] == "drawing  figure 0/2" and "drawing  figure 2/2" in lines


def test_an_import_replaces_nothing_unasked(import_table: Any, tmp_path: Path) -> None:
    import_table(ITSELF)
    assert "--replace" in import_table(ITSELF, code=2).stderr
    import_table(ITSELF, "--replace")
    (tmp_path / "study" / "plan.json").write_text("[]")
    assert "a study of its own" in import_table(ITSELF, "--replace", code=2).stderr


def test_a_matrix_is_hinted_at(import_table: Any) -> None:
    assert "--wide" in import_table("task,x,y\nnone,50,40\na,60,45\n", code=2).stderr
    assert import_table("task,x,y\nnone,50,40\na,60,45\n", "--wide").document["targets"] == ["x", "y"]


def test_a_study_behind_a_url_is_analysed(run: Run, tmp_path: Path) -> None:
    made().save(tmp_path / "study")
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "study"), "/theirs", recursive=True)
    there = run("study", "analyse", "memory://theirs", "--json").document
    assert there == run("study", "analyse", tmp_path / "study", "--json").document
    assert run("study", "analyse", "memory://nothing").code == 2


def test_each_pair_of_keys_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work grows with the cells: 7 tasks of 3 seeds are 21 keys, and 3 similarities of each pair of them."""
    compared: list[str] = []
    original = similarities.similarity
    monkeypatch.setattr(similarities, "similarity", lambda *args: compared.append(args[2]) or original(*args))
    analyse(made())
    assert len(compared) == 3 * (21 * 22 // 2)


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf"])
def test_a_factor_that_makes_no_scores(import_table: Any, scale: str) -> None:
    assert "cannot be a factor" in import_table(ITSELF, "--scale", scale, code=2).document["error"]


def test_keys_and_final_prompts_are_not_both_compared(import_table: Any, tmp_path: Path) -> None:
    for folder in ("keys", "values"):
        (tmp_path / folder).mkdir()
    error = import_table(ITSELF, "--keys", tmp_path / "keys", "--values", tmp_path / "values", code=2).stderr
    assert "not both" in error and "--keys" in error and "--values" in error
    assert not (tmp_path / "study").exists()
