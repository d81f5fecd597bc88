"""Executors: every group taken is told of once. Worker processes are tried in `test_scheduler.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.events import silent
from spoton.study.plan import machine
from spoton.study.plan.machine import own_cores, share_of, threads_of_worker
from spoton.study.run import executors
from spoton.study.run.cell_runner import CellRunner, Placement
from spoton.study.run.executors import InProcess, Processes, attempt, local_executor
from tests.study.small import MakeStudy


def test_one_worker_runs_here_and_more_get_processes(make_study: MakeStudy) -> None:
    cell_runner = CellRunner(make_study(seeds=[0]), placement=Placement(device="cpu"))
    here = local_executor(cell_runner, 1, silent)
    assert isinstance(here, InProcess) and here.slots == 1
    there = local_executor(cell_runner, 3, silent)
    assert isinstance(there, Processes) and there.slots == 3
    there.close()


def test_an_error_is_told_with_its_traceback_and_nothing_where_all_went_well(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    cell_runner = CellRunner(folder)
    cells = {cell.kind: cell for cell in cell_runner.cells()}
    executor = InProcess(cell_runner, silent)
    executor.submit((cells["zero-shot"],))
    executor.submit((cells["transfer"],))  # its source is not tuned yet
    went_well, failed = executor.wait()
    assert went_well.error == "" and (folder / "cells" / f"{cells['zero-shot'].name}.json").is_file()
    assert "Traceback" in failed.error and failed.group == (cells["transfer"],)
    assert executor.wait() == []
    assert attempt(cell_runner, (cells["zero-shot"],)) == ""  # it is finished: nothing is done


def test_workers_beyond_the_cores_take_turns() -> None:
    cores = len(own_cores())
    assert share_of(1, on_gpu=False) == (1, torch.get_num_threads())
    assert share_of(50 * cores, on_gpu=False).at_once == cores
    assert share_of(50 * cores, on_gpu=False).threads >= 1


def test_workers_share_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib takes it for a quota of one processor
    assert share_of(4, on_gpu=False) == (1, 1)
    assert threads_of_worker(16, 4) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_worker(16, 4) == 3


def test_a_worker_on_a_gpu_takes_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(executors, "own_cores", lambda: list(range(16)))
    monkeypatch.setattr(machine, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(
        executors.os, "sched_setaffinity", lambda *_: pytest.fail("cores were taken"), raising=False
    )
    executors._take_share(3, 5, Placement(device="cuda"))
    assert taken == [1, 3]
    executors._take_share(3, 32, Placement())
    assert taken == [1, 3, 1, 1]
    assert share_of(5, on_gpu=True) == (2, 3)


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with share_of(2, on_gpu=False)._replace(threads=1).threads_taken():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
