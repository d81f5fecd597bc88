"""Where cells run: in this process, or in several worker processes that each hold a model. Ray is in
`ray_executor.py`.

An executor takes groups of cells and reports for each group, once, how it ended. `scheduler.py` decides on retries and
order.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Protocol

import torch

from spoton.events import OnEvent
from spoton.study.plan.cells import Cell
from spoton.study.plan.machine import own_cores, threads_of_worker
from spoton.study.run.cell_runner import CellRunner, Placement

CellGroup = tuple[Cell, ...]
"""Cells that run together."""


@dataclass(frozen=True)
class Outcome:
    """How a group ended.

    Attributes:
        group: Its cells.
        error: The traceback; empty if the group succeeded.
    """

    group: CellGroup
    error: str = ""


class Executor(Protocol):
    """Runs groups of cells."""

    @property
    def slots(self) -> int:
        """How many groups it accepts at a time."""

    def submit(self, group: CellGroup) -> None:
        """Accepts a group; at most `slots` groups may be submitted and not yet returned by `wait`."""

    def wait(self) -> list[Outcome]:
        """Waits until at least one submitted group has ended, and returns those that have."""

    def close(self) -> None:
        """Ends groups that still run."""


class InProcess:
    """Runs one group at a time in this process, with live progress.

    Args:
        cell_runner: Runs the cells.
        on_event: Receives progress events.
    """

    slots = 1

    def __init__(self, cell_runner: CellRunner, on_event: OnEvent) -> None:
        self._cell_runner, self._on_event = cell_runner, on_event
        self._taken: list[CellGroup] = []

    def submit(self, group: CellGroup) -> None:
        """Accepts a group."""
        self._taken.append(group)

    def wait(self) -> list[Outcome]:
        """Runs the submitted groups."""
        groups, self._taken = self._taken, []
        return [Outcome(group, attempt(self._cell_runner, group, self._on_event)) for group in groups]

    def close(self) -> None:
        """Does nothing: no group runs between two calls."""


class Processes:
    """Worker processes, each with its own model and its own share of the cores, or its own GPU.

    A worker that dies (out of memory, killed) ends its pool. The groups that were running are reported as failed, and
    a new pool is started, in which they can be tried again.

    Args:
        place: The study's folder.
        workers: Number of processes.
        placement: Where each process holds its model.
    """

    def __init__(self, place: str, workers: int, placement: Placement | None = None) -> None:
        self.slots = workers
        self._place, self._placement = place, placement or Placement()
        self._futures: dict[Future[str], CellGroup] = {}
        self._pool = self._new_pool()

    def submit(self, group: CellGroup) -> None:
        """Accepts a group."""
        try:
            future = self._pool.submit(_in_worker, group)
        except BrokenProcessPool:
            self._pool = self._new_pool()
            future = self._pool.submit(_in_worker, group)
        self._futures[future] = group

    def wait(self) -> list[Outcome]:
        """Waits for at least one group."""
        done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
        outcomes = []
        for future in done:
            group = self._futures.pop(future)
            try:
                outcomes.append(Outcome(group, future.result()))
            except BrokenProcessPool as error:
                outcomes.append(Outcome(group, f"The worker process died: {error}"))
        return outcomes

    def close(self) -> None:
        """Ends the workers; unfinished cells keep their last checkpoint."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a forked child would share torch's threads and CUDA
        return ProcessPoolExecutor(
            self.slots, context, _open_worker,
            (self._place, self._placement, self.slots, context.Value("i", 0), os.getpid()),
        )  # fmt: skip


_cell_runner: CellRunner | None = None


def _open_worker(
    place: str, placement: Placement, workers: int, counter: Synchronized[int], parent: int
) -> None:
    """Gives this worker its cores or GPU, and its cell runner."""
    global _cell_runner
    with counter.get_lock():
        number = counter.value % workers
        counter.value += 1
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _take_share(number, workers, placement)
    _cell_runner = CellRunner(place, placement=placement)


def _take_share(number: int, workers: int, placement: Placement) -> None:
    """Takes the cores, or the GPU, of worker `number`; a device given by name is used by all workers.

    A worker on a GPU also gets its share of the threads, since every worker tokenizes and launches on the processor,
    but no cores of its own: the system moves it to a free one.
    """
    cores = own_cores()
    if torch.cuda.is_available() and placement.device in ("auto", "cuda"):
        torch.cuda.set_device(number % torch.cuda.device_count())
        torch.set_num_threads(threads_of_worker(max(1, len(cores) // workers), workers))
        return
    own = cores[number % len(cores) :: workers]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own)
    torch.set_num_threads(threads_of_worker(len(own), workers))


def _end_with(parent: int) -> None:
    """Ends this worker when the process that started it has ended, even by a kill."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _in_worker(group: CellGroup) -> str:
    assert _cell_runner is not None
    return attempt(_cell_runner, group)


def attempt(cell_runner: CellRunner, group: CellGroup, on_event: OnEvent = lambda event: None) -> str:
    """Runs a group; returns the traceback if it failed. Ctrl-C passes through."""
    try:
        cell_runner.carry_out(group, on_event)
    except Exception:
        return traceback.format_exc()
    return ""


def local_executor(cell_runner: CellRunner, workers: int, on_event: OnEvent) -> Executor:
    """Returns the executor for a number of workers on this machine."""
    if workers == 1:
        return InProcess(cell_runner, on_event)
    return Processes(cell_runner.store.place, workers, cell_runner.placement)
