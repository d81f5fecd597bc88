"""kill -9 of Ray's workers while a study runs: it ends with the results of an undisturbed one.

A new worker takes seconds to start, so this is a campaign of its own; `tests/study/run/test_scheduler.py` kills one.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import psutil
import pytest

from spoton.events import silent
from spoton.study.run.cell_runner import CellRunner
from spoton.study.run.executors import Executor, InProcess
from spoton.study.run.scheduler import run_cells
from tests.faults.test_kills import results
from tests.study.small import MakeStudy

KILLS = 8


@pytest.mark.campaign
@pytest.mark.timeout(1200)  # eight new workers, and whatever else the machine does
def test_a_study_survives_its_workers(make_study: MakeStudy) -> None:
    pytest.importorskip("ray", reason="the executor ray needs spoton[ray]")
    from spoton.study.run.ray_executor import OnRay

    here, there = make_study("here"), make_study("there")
    run(here, InProcess(CellRunner(here), silent))
    killer = Killer(KILLS)
    killer.start()
    rounds = 0
    while killer.left and rounds < 40:
        for cell in (there / "cells").glob("*.json"):
            cell.unlink()
        run(there, OnRay(CellRunner(there), workers=2))
        rounds += 1
    assert not killer.left, f"only {KILLS - killer.left} workers were killed"
    run(
        there, InProcess(CellRunner(there), silent)
    )  # a cell may have lost its worker as often as it is tried
    assert results(there) == results(here)


def run(folder: Path, executor: Executor) -> None:
    runner = CellRunner(folder)
    run_cells(runner.store, runner.cells(), executor)


class Killer(threading.Thread):
    """Kills workers that carry out cells, at random moments, until there were enough."""

    def __init__(self, kills: int) -> None:
        super().__init__(daemon=True)
        self.left = kills

    def run(self) -> None:
        moments, pause = random.Random(5), threading.Event()
        while self.left:
            pause.wait(moments.uniform(0.05, 1.5))
            for process in psutil.Process(os.getpid()).children(recursive=True):
                try:
                    if process.name().startswith("ray::_in_work"):
                        process.kill()
                        self.left -= 1
                        break
                except psutil.Error:
                    continue
