"""Running studies: nothing runs twice, nothing is lost, nobody dies alone, and every way of running finds the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from spoton.errors import Interrupted, StudyError
from spoton.events import Progress, silent
from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.analysis_json import analysis_json as as_document
from spoton.study.plan.cost import Predictor, Rates
from spoton.study.report.parts import Table
from spoton.study.report.sections import sections
from spoton.study.results.collect import collect
from spoton.study.run.cell_runner import CellRunner
from spoton.study.run.executors import CellGroup, Executor, InProcess, Outcome, Processes
from spoton.study.run.ray_executor import OnRay
from spoton.study.run.scheduler import Status, _groups, read_plan, run_cells, status_of
from spoton.study.run.store import Store
from spoton.transfer.similarity import similarity
from tests.study.small import MakeStudy
from tests.tiny import WIDTH

METHODS = {"methods": ["weighted-average", "multi-task-mixture"], "k": [2]}


def run(folder: Path | str, executor: Executor | None = None, **options: Any) -> Status:
    cell_runner = CellRunner(folder)
    return run_cells(
        cell_runner.store, cell_runner.cells(), executor or InProcess(cell_runner, silent), **options
    )


def results(folder: Path) -> dict[str, Any]:
    """What every cell found, without what differs from run to run."""
    found = {}
    for file in sorted((folder / "cells").glob("*.json")):
        cell = json.loads(file.read_text())
        unlike = ("seconds", "threads", "checksum")  # the checksum covers the other two
        found[cell["name"]] = {key: value for key, value in cell.items() if key not in unlike}
    return found


def test_a_study_runs_to_its_end_and_can_be_analysed(make_study: MakeStudy) -> None:
    folder = make_study(retrieval=METHODS)
    status = run(folder)
    kinds = {kind: counts["finished"] for kind, counts in status.to_json()["kinds"].items()}
    assert kinds == {
        "zero-shot": 1, "source": 4, "scratch": 2, "transfer": 4, "weighted-average": 2, "multi-task-mixture": 2,
    }  # fmt: skip
    assert not status.left and not status.failed and status.seconds_left == 0
    assert not list((folder / "work").glob("*.checkpoint")) and not list((folder / "work").glob("*.mixture"))
    found = collect(folder)
    assert found.sources == ("films.csv", "books.csv")
    assert {(one.source, one.seed) for one in found.test} == {
        (source, seed) for source in (None, "films.csv", "books.csv") for seed in (0, 1)
    }
    assert set(found.source_keys) == {(t, s) for t in found.sources for s in (0, 1)}
    assert set(found.target_keys) == {("songs.csv", 0), ("songs.csv", 1)}
    assert set(found.extra) == {"weighted-average:average_tokens@2", "multi-task-mixture:average_tokens@2"}
    transfers = [cell for cell in results(folder).values() if cell["kind"] == "transfer"]
    for cell in transfers:
        (parent,) = cell["parents"]
        assert parent["hash"] == results(folder)[parent["name"]]["prompt_hash"]
        assert cell["looks"][0]["step"] == 0  # a transferred prompt is looked at before its first step


def test_a_mixture_has_the_rows_of_the_source_that_was_retrieved(make_study: MakeStudy) -> None:
    """Two files of one name, in different folders, are two sources."""
    folder = make_study(seeds=[0], retrieval={"methods": ["multi-task-mixture"], "k": [1]})
    for place, file in (("a", "films"), ("b", "books")):
        (folder / place).mkdir()
        (folder / f"{file}.csv").rename(folder / place / "films.csv")
    document = yaml.safe_load((folder / "study.yaml").read_text())
    options = document["sources"]["tasks"][0]["options"]
    document["sources"]["tasks"] = [{"task": f"{place}/films.csv", "options": options} for place in "ab"]
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    assert not run(folder).failed
    cells = results(folder)
    (mixed,) = [cell for cell in cells.values() if cell["kind"] == "multi-task-mixture"]
    keys = {cell["task"]: name for name, cell in cells.items() if cell["kind"] == "source"}
    own = Store(folder).prompt(next(name for name, cell in cells.items() if cell["kind"] == "scratch")).key
    near = {task: similarity(own, Store(folder).prompt(name).key) for task, name in keys.items()}
    assert mixed["notes"] == [f"Mixture of {max(near, key=near.__getitem__)} and songs.csv."]


def test_a_finished_cell_never_runs_twice(make_study: MakeStudy) -> None:
    folder = make_study()
    run(folder)
    times = {file: file.stat().st_mtime_ns for file in (folder / "cells").iterdir()}
    run(folder)
    assert {file: file.stat().st_mtime_ns for file in (folder / "cells").iterdir()} == times


def test_a_larger_study_reuses_the_cells_of_a_smaller_one(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    run(folder)
    small = results(folder)
    text = (folder / "study.yaml").read_text()
    (folder / "study.yaml").write_text(text.replace("seeds:\n- 0\n", "seeds:\n- 0\n- 1\n"))
    times = {name: (folder / "cells" / f"{name}.json").stat().st_mtime_ns for name in small}
    assert not run(folder).left
    assert {name: (folder / "cells" / f"{name}.json").stat().st_mtime_ns for name in small} == times
    assert len(results(folder)) == 2 * len(small) - 1  # all but the bare model's


class Failing:
    """Runs here, but a cell of one kind fails the first times."""

    def __init__(self, cell_runner: CellRunner, kind: str, times: int) -> None:
        self._here, self._kind, self._times = InProcess(cell_runner, silent), kind, times
        self.slots = 1
        self.tried: list[str] = []
        self.groups: list[CellGroup] = []
        self._failed: list[Outcome] = []

    def submit(self, group: CellGroup) -> None:
        self.tried += [cell.name for cell in group]
        self.groups.append(group)
        if group[0].kind == self._kind and self._times > 0:
            self._times -= 1
            self._failed.append(Outcome(group, "Traceback: the disk is on fire"))
        else:
            self._here.submit(group)

    def wait(self) -> list[Outcome]:
        failed, self._failed = self._failed, []
        return failed or self._here.wait()

    def close(self) -> None:
        self._here.close()


def test_a_cell_that_fails_once_is_tried_again(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    executor = Failing(CellRunner(folder), "source", times=1)
    status = run(folder, executor)
    assert not status.left and not status.failed
    assert max(map(executor.tried.count, executor.tried)) == 2


def test_a_cell_that_fails_always_is_told_and_stops_only_what_needs_it(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    executor = Failing(CellRunner(folder), "source", times=2)  # twice the same one: it is tried again at once
    status = run(folder, executor)
    (name,) = status.failed
    assert name.startswith("source.films") and "on fire" in status.failed[name]
    assert [cell.kind for cell in status.left] == ["source", "transfer"]
    assert not run(folder).left  # and the next run makes up for it
    assert not status_of(Store(folder), read_plan(Store(folder))).failed


class Unlucky(InProcess):
    """Runs here, but a group with cells of a source fails."""

    source = ""

    def wait(self) -> list[Outcome]:
        self._taken, taken = [], self._taken
        outcomes = []
        for group in taken:
            if any(cell.kind == "source" and cell.task == self.source for cell in group):
                outcomes.append(Outcome(group, "Traceback: its rows cannot be used"))
            else:
                self._taken = [group]
                outcomes += super().wait()
        return outcomes


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("source", ["films.csv", "books.csv"])
def test_a_source_that_fails_stops_no_other_of_its_groups(
    make_study: MakeStudy, source: str, tries: int
) -> None:
    folder = make_study(seeds=[0])
    executor = Unlucky(CellRunner(folder), silent)
    executor.source = source
    status = run(folder, executor, together=2, tries=tries)
    assert [cell.kind for cell in status.left] == ["source", "transfer"]
    assert all(source in cell.words for cell in status.left)
    (name,) = status.failed
    assert name.startswith(f"source.{source.removesuffix('.csv')}")
    assert not run(folder, together=2).left


def test_what_goes_wrong_in_a_cell_is_kept_with_its_traceback(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    cell_runner = CellRunner(folder)
    cells = cell_runner.cells()
    (folder / "songs.csv").write_text((folder / "songs.csv").read_text().replace("sounds", "is"))
    status = run_cells(cell_runner.store, cells, InProcess(CellRunner(folder), silent))
    assert {cell.kind for cell in status.left} == {"zero-shot", "scratch", "transfer"}
    error = status.failed[next(cell.name for cell in cells if cell.kind == "scratch")]
    assert "Traceback" in error and "Expected rows of songs.csv" in error


def test_two_processes_do_not_run_one_study(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    cell_runner = CellRunner(folder)

    class Second(InProcess):
        def wait(self) -> list[Outcome]:
            with pytest.raises(StudyError, match="Another process"):
                run(folder)
            return super().wait()

    run_cells(cell_runner.store, cell_runner.cells(), Second(cell_runner, silent))


def test_cells_together_equal_cells_alone(make_study: MakeStudy) -> None:
    one, many = make_study("alone", seeds=[0]), make_study("together", seeds=[0])
    run(one)
    began = time.monotonic()
    status = run(many, together=2)
    # Each is told its share of the time that they took together.
    assert 0 < sum(status.finished.values()) <= time.monotonic() - began
    for (name, alone), (other, shared) in zip(results(one).items(), results(many).items(), strict=True):
        assert name == other
        if alone["kind"] == "transfer":
            assert shared["last_loss"] == pytest.approx(alone["last_loss"], abs=1e-4)
            assert shared["scores"] == alone["scores"]


def test_cells_of_one_kind_share_passes_across_targets_and_seeds(make_study: MakeStudy) -> None:
    folder = make_study(retrieval=METHODS, controls=["noise"], model_tuning={})
    cell_runner = CellRunner(folder)
    executor = Failing(cell_runner, "none", times=0)
    assert not run(folder, executor, together=3).left
    kinds = [[cell.kind for cell in group] for group in executor.groups]
    assert max(map(len, kinds)) == 2 and all(len(set(kind)) == 1 for kind in kinds)
    alone = make_study("alone", retrieval=METHODS, controls=["noise"], model_tuning={})
    assert not run(alone).left
    for shared, one in zip(results(folder).values(), results(alone).values(), strict=True):
        assert shared["name"] == one["name"] and shared["scores"] == one["scores"]


def test_groups_have_one_kind_and_at_most_so_many_cells(make_study: MakeStudy) -> None:
    cells = CellRunner(make_study(retrieval=METHODS, model_tuning={})).cells()
    assert [len(group) for group in _groups(cells, 1)] == [1] * len(cells)
    later = sorted(cells, key=lambda cell: cell.kind)  # both seeds of a kind are neighbours
    found = {(group[0].kind, len(group)) for group in _groups(later, 3)}
    assert found == {
        ("model-tuning", 1), ("multi-task-mixture", 1), ("scratch", 2), ("source", 3), ("source", 1),
        ("transfer", 3), ("transfer", 1), ("weighted-average", 2), ("zero-shot", 1),
    }  # fmt: skip
    halved = sorted(CellRunner(make_study("halved", **HALVING)).cells(), key=lambda cell: cell.kind)
    transfers = [group for group in _groups(halved, 3) if group[0].kind == "transfer"]
    assert [[cell.seed for cell in group] for group in transfers] == [[0, 0], [1, 1]]


HALVING = {"halving": {"rungs": [3]}}


def test_halving_drops_a_cell_that_keeps_what_it_had(make_study: MakeStudy) -> None:
    whole, halved = make_study("whole", seeds=[0]), make_study("halved", seeds=[0], **HALVING)
    run(whole)
    assert not run(halved).left
    cells = [cell for cell in results(halved).values() if cell["kind"] == "transfer"]
    assert sorted(cell["steps"] for cell in cells) == [3, 6]
    for cell in cells:
        assert cell["dropped"] == (3 if cell["steps"] == 3 else None) and cell["halving"]["rungs"] == [3]
        alone = next(
            c for c in results(whole).values() if (c["kind"], c["source"]) == ("transfer", cell["source"])
        )
        looks = [look for look in alone["looks"] if look["step"] <= cell["steps"]]
        assert [look["validation"] for look in cell["looks"]] == [look["validation"] for look in looks]
    assert "halving" not in next(c for c in results(whole).values() if c["kind"] == "transfer")
    (place,) = collect(halved).dropped
    assert place[1:] == ("songs.csv", 0) and collect(halved).dropped[place] == 3
    assert not collect(whole).dropped


def test_a_cell_lost_after_halving_is_compared_with_the_finished_ones(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0], **HALVING)
    run(folder)
    before = results(folder)
    for name in [name for name in before if name.startswith("transfer.")]:
        (folder / "cells" / f"{name}.json").unlink()
        assert not run(folder).left
        again = results(folder)[name]
        assert again["dropped"] == before[name]["dropped"] and again["scores"] == before[name]["scores"]


def test_what_fails_in_a_halving_is_tried_again_with_its_rivals(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0], **HALVING)
    executor = Failing(CellRunner(folder), "transfer", times=1)
    assert not run(folder, executor).left
    transfers = [name for name in executor.tried if name.startswith("transfer.")]
    assert len(transfers) == 4 and transfers[:2] == transfers[2:]


KILLED = """
import os, sys
from spoton.study.plan.cost import Predictor, Rates
from spoton.study.analysis.analysis_json import analysis_json as as_document
from spoton.study.run.executors import InProcess
from spoton.study.report.parts import Table
from spoton.study.report.sections import sections
from spoton.study.run.scheduler import run_cells
from spoton.study.run.cell_runner import CellRunner

steps = 0
def watch(event):
    global steps
    steps += 1
    if steps == int(sys.argv[2]):
        os.kill(os.getpid(), 9)

cell_runner = CellRunner(sys.argv[1])
run_cells(cell_runner.store, cell_runner.cells(), InProcess(cell_runner, watch))
"""


def test_a_killed_halving_drops_the_same(make_study: MakeStudy) -> None:
    whole, broken = make_study("whole", seeds=[0], **HALVING), make_study("broken", seeds=[0], **HALVING)
    run(whole)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(broken), "23"], timeout=600)
    assert ended.returncode == -signal.SIGKILL and len(results(broken)) < len(results(whole))
    run(broken)
    assert results(broken) == results(whole)


@pytest.mark.parametrize("steps", [8, 29])
def test_a_killed_study_goes_on_and_ends_as_if_nothing_had_been(make_study: MakeStudy, steps: int) -> None:
    whole, broken = make_study("whole", retrieval=METHODS), make_study("broken", retrieval=METHODS)
    run(whole)
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(broken), str(steps)], timeout=600)
        assert ended.returncode == -signal.SIGKILL
    assert 0 < len(results(broken)) < len(results(whole))
    run(broken)
    assert results(broken) == results(whole)


def test_worker_processes_find_the_same_even_if_one_is_killed(make_study: MakeStudy) -> None:
    here, there = make_study("here"), make_study("there")
    run(here)
    killed = _kill_one(lambda process: "multiprocessing.spawn" in " ".join(process.cmdline()), there)
    run(there, Processes(str(there), 2))
    assert killed.wait(1), "no worker was seen"
    assert results(there) == results(here)


def test_ray_workers_find_the_same_even_if_one_is_killed(make_study: MakeStudy) -> None:
    pytest.importorskip("ray", reason="the executor ray needs spoton[ray]")
    here, there = make_study("here"), make_study("there")
    run(here)
    executor = OnRay(CellRunner(there), workers=2)
    killed = _kill_one(lambda process: process.name().startswith("ray::_in_work"), there)
    run(there, executor)
    assert killed.wait(1), "no worker was seen"
    assert results(there) == results(here)


def _kill_one(is_worker: Any, folder: Path) -> threading.Event:
    """Kills the first worker seen after the first cell is finished."""
    killed = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            if list((folder / "cells").glob("*.json")):
                for process in psutil.Process(os.getpid()).children(recursive=True):
                    try:
                        if is_worker(process):
                            process.kill()
                            killed.set()
                            return
                    except psutil.Error:
                        continue
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    return killed


def test_workers_end_with_the_process_that_started_them(make_study: MakeStudy) -> None:
    folder = make_study(seeds=list(range(40)))
    code = "import sys; from spoton.cli.start import main; sys.argv = ['spoton', *sys.argv[1:]]; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "study", "run", str(folder), "--workers", "2"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 600
        while not list((folder / "cells").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
    finally:
        process.kill()
        process.wait(10)
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive


def test_a_url_is_a_folder_as_well(make_study: MakeStudy) -> None:
    import fsspec

    folder = make_study(seeds=[0])
    memory = fsspec.filesystem("memory")
    text = (folder / "study.yaml").read_text().replace("task: ", f"task: {folder}/")
    memory.pipe_file("/there/study.yaml", text.encode())
    status = run("memory://there")
    assert not status.left
    assert len(Store("memory://there").names("cells", ".json")) == len(status.cells)


def test_a_place_that_is_no_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="spoton study new"):
        CellRunner(tmp_path)
    with pytest.raises(StudyError, match="Cannot open"):
        CellRunner("nowhere://study")


def test_damaged_results_are_told_by_name(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    run(folder)
    file = next((folder / "cells").glob("scratch.*.json"))
    file.write_text("{")
    with pytest.raises(StudyError, match=file.stem):
        collect(folder)


def test_model_tuning_stands_beside_transfer_in_the_results(make_study: MakeStudy) -> None:
    folder = make_study(model_tuning={"recipe": {"learning_rate": 1e-3}, "seeds": [0]})
    assert not run(folder).left
    (cell,) = [one for one in results(folder).values() if one["kind"] == "model-tuning"]
    assert cell["recipe"]["learning_rate"] == 1e-3 and cell["recipe"]["steps"] == 6
    assert set(cell["scores"]) == {"validation", "test"} and [look["step"] for look in cell["looks"]] == [
        3,
        6,
    ]
    assert not list((folder / "work").glob("*.checkpoint"))
    found = collect(folder)
    (score,) = found.extra_test["model-tuning"]
    assert (score.target, score.seed, score.score) == ("songs.csv", 0, cell["scores"]["test"])
    assert found.metadata["tuned"]["prompt"] == {"parameters": 4 * WIDTH, "bytes": 16 * WIDTH}

    document = as_document(analyse(found))
    shown = document["baselines"]
    assert shown["ratio"] == cell["tuned_parameters"] / (4 * WIDTH)
    (row,) = shown["targets"]
    assert row["model_tuning"] == {"mean": cell["scores"]["test"], "std": None, "n": 1}
    # Prompts are compared on the seeds of model tuning alone.
    assert all(row[name]["n"] == 1 for name in ("from_scratch", "transfer", "retrieval"))
    assert any(one["method"] == "model-tuning" for one in document["retrieval"]["rows"])
    verdict = document["verdicts"][-1]
    assert (
        verdict["answer"] != "unknown"
        and f"{shown['ratio']:,.0f} times as many numbers" in verdict["sentence"]
    )
    told = [
        block for one in sections(analyse(found), []) if one.title == "Model tuning" for block in one.blocks
    ]
    assert any(isinstance(block, Table) and "songs.csv" in block.rows[0] for block in told)

    without = make_study("without")
    run(without)
    assert set(results(without)) == set(results(folder)) - {cell["name"]}
    assert as_document(analyse(collect(without)))["baselines"] is None


def test_validation_chooses_the_learning_rate_of_model_tuning(make_study: MakeStudy) -> None:
    rates = [1e-5, 1e-3, 1e-2]
    folder = make_study(seeds=[0], model_tuning={"learning_rates": rates})
    assert not run(folder).left
    cells = [one for one in results(folder).values() if one["kind"] == "model-tuning"]
    assert sorted(cell["recipe"]["learning_rate"] for cell in cells) == rates
    found = collect(folder)
    (validation,), (test,) = found.extra["model-tuning"], found.extra_test["model-tuning"]
    assert validation.score == max(cell["scores"]["validation"] for cell in cells)
    assert (validation.score, test.score) in [
        (cell["scores"]["validation"], cell["scores"]["test"]) for cell in cells
    ]
    blocks = [
        block for one in sections(analyse(found), []) if one.title == "Model tuning" for block in one.blocks
    ]
    assert any("best by validation of 1e-05, 0.001, 0.01." in str(block) for block in blocks)


def test_model_tuning_goes_on_after_an_interruption(make_study: MakeStudy) -> None:
    folder = make_study(model_tuning={"seeds": [0]}, sources={"tasks": []})
    cell_runner = CellRunner(folder)
    (cell,) = [one for one in cell_runner.cells() if one.kind == "model-tuning"]

    def stop(event: Progress) -> None:
        if event.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="model tuning at 3e-05, seed 0: Interrupted after 4 of 6 steps"):
        cell_runner.carry_out([cell], stop)
    assert (folder / "work" / f"{cell.name}.checkpoint" / "weights-3.safetensors").is_file()
    cell_runner.carry_out([cell])
    cut = results(folder)
    whole = make_study("whole", model_tuning={"seeds": [0]}, sources={"tasks": []})
    CellRunner(whole).carry_out([cell])
    assert results(whole) == cut and not (folder / "work" / f"{cell.name}.checkpoint").exists()


def test_model_tuning_is_predicted(make_study: MakeStudy) -> None:
    cell_runner = CellRunner(make_study(model_tuning={}))
    predictor = Predictor(cell_runner.model, cell_runner.task, rates=Rates(train=1e-3, score=0.0, kept=1e3))
    by_kind = {cell.kind: cell for cell in cell_runner.cells()}
    tuned, scratch = by_kind["model-tuning"], by_kind["scratch"]
    assert predictor.seconds(tuned) > 1.2 * predictor.seconds(scratch) > 0
    assert (
        predictor.memory(tuned) > 20 * cell_runner.model.network.num_parameters() > predictor.memory(scratch)
    )
