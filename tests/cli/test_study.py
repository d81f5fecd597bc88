"""`spoton study` from an empty folder to a report, and what it says of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.study.small import MakeStudy, make_study

__all__ = ["make_study"]  # the fixture


def test_new_writes_a_study_that_plan_can_read(run: Run, tmp_path: Path) -> None:
    done = run("study", "new", tmp_path / "mine", "--json")
    assert done.code == 0 and done.document == {"study": str(tmp_path / "mine" / "study.yaml")}
    again = run("study", "new", tmp_path / "mine")
    assert again.code == 2 and "already exists" in again.stderr
    assert "quick, spot-paper" in run("study", "new", tmp_path / "other", "--preset", "quik").stderr


@pytest.fixture
def folder(make_study: MakeStudy) -> Path:
    return make_study(seeds=[0])


def test_plan_run_status_analyse(run: Run, folder: Path) -> None:
    assert "spoton study plan" in run("study", "status", folder).stderr
    assert "has not run yet" in run("study", "analyse", folder).stderr
    plan = run("study", "plan", folder, "--workers", 2, "--json").document
    assert (plan["cells"], plan["finished"]) == (6, 0)
    assert plan["kinds"]["transfer"] == {"cells": 2, "finished": 0}
    assert plan["seconds"] > 0 and plan["seconds_left"] == pytest.approx(plan["seconds"] / plan["at_once"])
    assert plan["memory_bytes"] > 0 and len(set(plan["names"])) == 6
    assert "No cell" in run("study", "analyse", folder).stderr
    done = run("study", "run", folder, "--together", 2, "--json")
    assert done.code == 0 and done.document["finished"] == 6
    assert "cell 6/6" in done.stderr
    status = run("study", "status", folder)
    assert status.code == 0 and "6 of 6" in status.stdout
    analysis = run("study", "analyse", folder, "--json")
    assert analysis.code == 0
    assert "films.csv" in analysis.stdout


def test_cells_that_fail_are_told_and_the_exit_code_says_so(run: Run, folder: Path) -> None:
    plan = run("study", "plan", folder, "--json").document
    name = next(name for name in plan["names"] if name.startswith("transfer.films"))
    source = next(name for name in plan["names"] if name.startswith("source.films"))
    run("study", "run", folder)
    (folder / "cells" / f"{name}.json").unlink()
    (folder / "prompts" / f"{source}.safetensors").write_bytes(b"damaged")
    done = run("study", "run", folder, "--tries", 1, "--json")
    assert done.code == 1
    assert list(done.document["failed"]) == [name]
    assert "damaged" in done.stderr and "spoton study status" in done.stderr
    assert "Traceback" in run("study", "status", folder).stdout


@pytest.mark.parametrize("verb", ["plan", "run", "status"])
def test_a_folder_that_is_no_study_is_told(run: Run, tmp_path: Path, verb: str) -> None:
    done = run("study", verb, tmp_path)
    assert done.code == 2 and "Traceback" not in done.stderr


def test_a_preset_is_planned_without_a_folder_weights_or_rows(run: Run) -> None:
    plan = run("study", "plan", "--preset", "spot-paper", "--json")
    assert plan.code == 0 and plan.document["estimate"] is True and plan.document["cells"] == 808
    assert plan.document["device_hours"]["NVIDIA A100"] > 100
    for wrong in (("study", "plan"), ("study", "plan", "mine", "--preset", "quick")):
        assert run(*wrong).code == 2


def test_plan_lists_all_that_is_missing_and_estimates(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "{model: smollm2-135m, data_dir: nowhere, seeds: [0], sources: {tasks: [mnli, qqp]}, targets: {tasks: [cb]}}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        plan = run("study", "plan", tmp_path, "--json")
    assert plan.code == 1 and plan.document["cells"] == 6
    told = " ".join(plan.document["missing"])
    assert all(name in told for name in ("mnli", "qqp", "cb"))
    assert not (tmp_path / "plan.json").exists()


def test_the_next_command_can_be_pasted(run: Run, tmp_path: Path) -> None:
    done = run("study", "new", tmp_path / "my study")
    assert f"spoton study plan '{tmp_path / 'my study'}'" in done.stdout.replace("\n", "")


def test_a_recipe_that_ends_before_its_key_is_told_by_plan(run: Run, folder: Path) -> None:
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["sources"]["recipe"] = document["sources"]["recipe"] | {"key_step": 9}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    told = " ".join(run("study", "plan", folder).stderr.split())
    assert "recipe of books.csv, films.csv ends before its key_step" in told


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_start_that_is_not_there_is_told_before_anything_runs(run: Run, folder: Path, verb: str) -> None:
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["sources"]["recipe"] = document["sources"].get("recipe", {}) | {"init": "nope.safetensors"}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    ran = run("study", verb, folder, "--json")
    assert ran.code == 2 and ran.document["kind"] == "StudyError"
    assert "init is 'nope.safetensors'" in ran.document["error"] and "no such file" in ran.document["error"]
    assert not (folder / "cells").exists()


def test_damaged_cells_are_shown_and_run_again(run: Run, folder: Path) -> None:
    run("study", "run", folder)
    damaged = next((folder / "cells").glob("transfer.*.json"))
    damaged.write_bytes(b"")
    status = run("study", "status", folder, "--json").document
    assert status["damaged"] == [damaged.stem] and status["finished"] == status["cells"] - 1
    assert "damaged" in run("study", "status", folder).stdout
    again = run("study", "run", folder, "--json")
    assert again.code == 0 and again.document["damaged"] == [] and damaged.stat().st_size > 0


@pytest.mark.parametrize("recipe", [{"steps": 10**30}, {"batch_size": 10**12}, {"evaluate_every": 10**18}])
def test_a_recipe_beyond_all_bounds_is_planned_or_refused(
    run: Run, folder: Path, recipe: dict[str, int]
) -> None:
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["targets"]["recipe"] |= recipe
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    plan = run("study", "plan", folder)
    assert plan.code in (0, 2) and "Traceback" not in plan.stderr
