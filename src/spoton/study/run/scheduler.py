"""Runs a study: cells that are ready go to the executor, failed cells are tried again, finished cells never run twice.

The folder holds all state. To resume a killed run, run it again. If the study file changes, cells keep their names, and
so their results, unless something that decides them has changed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spoton.errors import StudyError
from spoton.events import OnEvent, Progress, silent
from spoton.parsing import parse_json
from spoton.sealing import sealed_json
from spoton.study.plan.cells import COMBINATIONS, Cell, Transfer
from spoton.study.run.executors import CellGroup, Executor, Outcome
from spoton.study.run.queue import Queue
from spoton.study.run.store import Store
from spoton.tuning.halving import Halving
from spoton.tuning.kept import whole_document

PLAN = "plan.json"
"""The list of cells, written by `plan` and `run`."""

_SHARING = frozenset({"source", "scratch", "transfer", "noise"} | {kind.kind for kind in COMBINATIONS})
"""Kinds of cells that can share passes: their steps are those of a prompt on one task."""

TRIES = 2
"""How many times a cell is tried in one run before it counts as failed."""


@dataclass(frozen=True)
class Planned:
    """A cell in the plan, which can be read without the model and the rows.

    Attributes:
        name: Name of the cell.
        kind: Kind of the cell.
        words: A description for people.
        seconds: Seconds of one worker, as predicted on the machine that planned.
    """

    name: str
    kind: str
    words: str
    seconds: float


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        cells: All cells.
        finished: Seconds that each finished cell took, by name.
        failed: Name and traceback of the cells that failed in their last run.
        damaged: Names of the cells whose result is empty, truncated or of another cell; they run again.
    """

    cells: tuple[Planned, ...]
    finished: dict[str, float]
    failed: dict[str, str]
    damaged: tuple[str, ...] = ()

    @property
    def left(self) -> list[Planned]:
        """Cells without a result."""
        return [cell for cell in self.cells if cell.name not in self.finished]

    @property
    def seconds_left(self) -> float:
        """Seconds of one worker for the cells that are left: predictions, scaled by their error so far."""
        predicted = sum(cell.seconds for cell in self.cells if cell.name in self.finished)
        scale = sum(self.finished.values()) / predicted if predicted else 1.0
        return scale * sum(cell.seconds for cell in self.left)

    def to_json(self) -> dict[str, Any]:
        """Returns counts by kind, failed and damaged cells, and the time left."""
        counts = Counter(cell.kind for cell in self.cells)
        done = Counter(cell.kind for cell in self.cells if cell.name in self.finished)
        return {
            "cells": len(self.cells), "finished": len(self.finished),
            "kinds": {kind: {"cells": n, "finished": done[kind]} for kind, n in counts.items()},
            "failed": self.failed, "damaged": list(self.damaged), "seconds_left": self.seconds_left,
        }  # fmt: skip


def write_plan(store: Store, cells: Sequence[Cell], predicted: Callable[[Cell], float]) -> list[Planned]:
    """Writes the list of cells into the folder, so that status and analysis need neither model nor rows."""
    plan = [Planned(cell.name, cell.kind, cell.words, predicted(cell)) for cell in cells]
    store.write(PLAN, (json.dumps([asdict(one) for one in plan], indent=1) + "\n").encode())
    return plan


def read_plan(store: Store) -> list[Planned]:
    """Returns the list of cells.

    Raises:
        StudyError: The study is not planned yet, or the list is damaged.
    """
    data = store.read(PLAN)
    if data is None:
        raise StudyError(
            f"{store.place} has no {PLAN}, so its cells are not known. `spoton study plan {store.place}` writes it."
        )
    try:
        return [Planned(**one) for one in parse_json(data)]
    except (ValueError, TypeError) as error:
        raise StudyError(
            f"{store.place}/{PLAN} is damaged ({error}). `spoton study plan {store.place}` writes it again."
        ) from error


def status_of(store: Store, plan: Sequence[Planned]) -> Status:
    """Returns how far a study is, from its folder only."""
    there = store.names("cells", ".json")
    failures = store.names("failures", ".json")
    finished: dict[str, float] = {}
    damaged = []
    for name, result in store.results(cell.name for cell in plan if cell.name in there):
        if result is None:
            damaged.append(name)
        else:
            finished[name] = float(result["seconds"])
    failed = {
        cell.name: str(document_of(store, f"failures/{cell.name}.json").get("error", ""))
        for cell in plan
        if cell.name in failures and cell.name not in finished
    }
    return Status(tuple(plan), finished, dict(sorted(failed.items())), tuple(damaged))


def document_of(store: Store, name: str) -> dict[str, Any]:
    """Returns a JSON file of the folder.

    Raises:
        StudyError: The file is empty or damaged, which no crash of spoton causes.
    """
    document = whole_document(store.read(name))
    if document is None:
        raise StudyError(
            f"{store.place}/{name} is damaged: it holds no whole JSON object. `spoton study run {store.place}` makes "
            "it again."
        )
    return document


def run_cells(
    store: Store,
    cells: Sequence[Cell],
    executor: Executor,
    *,
    together: int = 1,
    tries: int = TRIES,
    predicted: Callable[[Cell], float] = lambda cell: 1.0,
    on_event: OnEvent = silent,
) -> Status:
    """Runs every cell that has no result yet.

    Args:
        store: The study's folder.
        cells: All cells of the study, in the best order to run them.
        executor: Where they run; closed at the end.
        together: How many cells of one kind, of any targets and seeds, share every pass through the model.
        tries: How many times a cell is tried before it counts as failed. Where several cells fail together, each is
            tried alone at least once.
        predicted: Predicts the seconds of one worker for a cell.
        on_event: Receives an event after every group; an executor in this process also sends events for steps.

    Returns:
        How far the study is now: failed cells, and cells that need them, are left.

    Raises:
        StudyError: Another process is running this study.
        Interrupted: Ctrl-C; finished cells are kept.
    """
    with _alone(store):
        plan = write_plan(store, cells, predicted)
        progress = _Progress(plan, set(status_of(store, plan).finished))
        queue = Queue(_groups(cells, together), progress.done, lambda group: _halving(group) is not None)
        attempts: Counter[str] = Counter()
        free = executor.slots
        try:
            while True:
                while free and (group := queue.take()):
                    todo = tuple(cell for cell in group if cell.name not in progress.done)
                    executor.submit(group if _halving(group) else todo)
                    free -= 1
                if free == executor.slots:
                    return status_of(store, plan)
                for outcome in executor.wait():
                    free += 1
                    for name in _settle(store, outcome, attempts, queue, tries):
                        progress.note(name)
                        queue.finish(name)
                    on_event(progress.event())
        finally:
            executor.close()


def _halving(group: CellGroup) -> Halving | None:
    """Returns how the cells of a group are compared while they are tuned together; None if they are not."""
    first = group[0]
    return first.halving if isinstance(first, Transfer) else None


def _groups(cells: Sequence[Cell], together: int) -> list[CellGroup]:
    """Returns groups of cells, built from finished and unfinished cells so that a resumed run has the same groups.

    A group has cells of one kind, which never need each other. Transfers that are compared are tuned together.
    """
    groups: list[list[Cell]] = []
    for cell in cells:
        if groups and _belongs(cell, groups[-1], together):
            groups[-1].append(cell)
        else:
            groups.append([cell])
    return [tuple(group) for group in groups]


def _belongs(cell: Cell, group: Sequence[Cell], together: int) -> bool:
    """Returns whether a cell is tuned together with the cells before it."""
    last = group[-1]
    if last.kind != cell.kind or cell.kind not in _SHARING:
        return False
    if _halving((cell,)) or _halving((last,)):
        return (last.task, last.seed) == (cell.task, cell.seed)
    return len(group) < together


def _settle(store: Store, outcome: Outcome, attempts: Counter[str], queue: Queue, tries: int) -> list[str]:
    """Returns the names of the cells of a group that are finished now; records failures of the others, puts those with
    tries left back into the queue, and tells it which have failed for good."""
    finished = [
        name for name, result in store.results(cell.name for cell in outcome.group) if result is not None
    ]
    left = [cell for cell in outcome.group if cell.name not in set(finished)]
    for cell in left:
        attempts[cell.name] += 1
        error = outcome.error or "The cell ended without a result and without an error."
        record = {"name": cell.name, "words": cell.words, "attempts": attempts[cell.name], "error": error}
        store.write(f"failures/{cell.name}.json", sealed_json(record))
    if _halving(outcome.group):
        if any(attempts[cell.name] < tries for cell in left):
            queue.put_back(outcome.group)
        return finished
    for cell in left:
        # Several that fail together share one error, and some of them may run.
        if attempts[cell.name] < tries or len(left) > 1:
            queue.put_back((cell,))  # alone, so that its failure does not affect other cells
        else:
            queue.fail(cell.name)
    return finished


class _Progress:
    """How far a running study is, as running sums: the cost of an event does not depend on the number of cells."""

    def __init__(self, plan: Sequence[Planned], done: set[str]) -> None:
        self.done = done
        self._seconds = {cell.name: cell.seconds for cell in plan}
        self._left = sum(seconds for name, seconds in self._seconds.items() if name not in done)
        self._began, self._here = time.monotonic(), 0.0

    def note(self, name: str) -> None:
        """Counts a cell as finished."""
        if name not in self.done:
            self.done.add(name)
            self._here += self._seconds[name]
            self._left -= self._seconds[name]

    def event(self) -> Progress:
        """Returns the progress event; the time left is based on the time of the cells in this run."""
        seconds = (time.monotonic() - self._began) / self._here * self._left if self._here else None
        return Progress("study", len(self.done), len(self._seconds), "cell", seconds_left=seconds)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Prevents a second process on this machine from running the same study; the system releases the lock of a killed
    process."""
    if store.local is None:
        yield  # object stores have no locks; two runs would only do the same work twice
        return
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = Path(store.local) / "work" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StudyError(
                f"Another process is running the study {store.place}. Wait for it or stop it; `spoton study status` "
                "shows its progress."
            ) from error
        yield
