"""Running a study: what is ready goes to the executor, what failed is tried again, what is finished never runs twice.

The folder is the only memory. A run that is killed is resumed by running it again; cells of a study that is
changed are found under their old names where nothing that decides them has changed.
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
from spoton.study.plan.cells import Cell, Transfer
from spoton.study.run.executors import Executor, Group, Outcome
from spoton.study.run.queue import Queue
from spoton.study.run.store import Store
from spoton.tuning.halving import Halving
from spoton.tuning.kept import whole_document

PLAN = "plan.json"
"""The list of cells, written by whoever plans or runs."""

TRIES = 2
"""How often a cell is tried in one run before it is left as failed."""


@dataclass(frozen=True)
class Planned:
    """A cell as the plan has it, for whoever has neither the model nor the rows.

    Attributes:
        name: The cell's.
        kind: What is run.
        words: What it is, for people.
        seconds: Of one worker, as predicted on the machine that planned.
    """

    name: str
    kind: str
    words: str
    seconds: float


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        cells: All of them.
        finished: What each finished cell took in seconds, by name.
        failed: Name and traceback of those that failed last time they ran.
        damaged: Names of those whose result is empty, cut off or another's; they run again.
    """

    cells: tuple[Planned, ...]
    finished: dict[str, float]
    failed: dict[str, str]
    damaged: tuple[str, ...] = ()

    @property
    def left(self) -> list[Planned]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.name not in self.finished]

    @property
    def seconds_left(self) -> float:
        """Seconds of one worker for what is left: predictions, scaled by how right they were so far."""
        predicted = sum(cell.seconds for cell in self.cells if cell.name in self.finished)
        scale = sum(self.finished.values()) / predicted if predicted else 1.0
        return scale * sum(cell.seconds for cell in self.left)

    def to_json(self) -> dict[str, Any]:
        """Counts by kind, what failed or is damaged, and the time left."""
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
        StudyError: The study was not planned yet, or the list is damaged.
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
    """Returns how far a study is, from its folder alone."""
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
        StudyError: It is empty or damaged, which no crash of ours leaves behind.
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
        cells: All cells of the study, in the order in which they are best run.
        executor: Where they run; closed at the end.
        together: How many cells of one target that differ only in their start share every pass over the model.
        tries: How often a cell is tried before it is left as failed.
        predicted: Seconds of one worker that a cell is expected to take.
        on_event: Told after every group; an executor in this process tells of steps as well.

    Returns:
        How far the study is now: failed cells, and those that need them, are left.

    Raises:
        StudyError: Another process runs this study.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    with _alone(store):
        plan = write_plan(store, cells, predicted)
        progress = _Progress(plan, set(status_of(store, plan).finished), executor.slots)
        queue = Queue(_groups(cells, together), progress.done)
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


def _halving(group: Group) -> Halving | None:
    """How the cells of a group are compared while they are tuned together, if they are."""
    first = group[0]
    return first.halving if isinstance(first, Transfer) else None


def _groups(cells: Sequence[Cell], together: int) -> list[Group]:
    """Cells in groups; made of all cells, finished or not, so that a resumed run has the same groups."""
    groups: list[list[Cell]] = []
    for cell in cells:
        last = groups[-1][-1] if groups else None
        if isinstance(cell, Transfer) and isinstance(last, Transfer):
            most = len(cells) if cell.halving else together  # those that are compared are tuned together
            if (last.task, last.seed) == (cell.task, cell.seed) and len(groups[-1]) < most:
                groups[-1].append(cell)
                continue
        groups.append([cell])
    return [tuple(group) for group in groups]


def _settle(store: Store, outcome: Outcome, attempts: Counter[str], queue: Queue, tries: int) -> list[str]:
    """Names of the cells of a group that are finished now; the others are noted, and tried again if they may be."""
    finished = [
        name for name, result in store.results(cell.name for cell in outcome.group) if result is not None
    ]
    left = [cell for cell in outcome.group if cell.name not in set(finished)]
    for cell in left:
        attempts[cell.name] += 1
        error = outcome.error or "It ended without a result and without an error."
        record = {"name": cell.name, "words": cell.words, "attempts": attempts[cell.name], "error": error}
        store.write(f"failures/{cell.name}.json", sealed_json(record))
    again = [cell for cell in left if attempts[cell.name] < tries]
    if again and _halving(outcome.group):
        queue.put_back(outcome.group)
    else:
        for cell in again:
            queue.put_back((cell,))  # alone: whatever it was, it shall not take others with it
    return finished


class _Progress:
    """How far a running study is, kept as running sums so that an event costs the same however many cells there are."""

    def __init__(self, plan: Sequence[Planned], done: set[str], slots: int) -> None:
        self.done = done
        self._seconds = {cell.name: cell.seconds for cell in plan}
        self._left = sum(seconds for name, seconds in self._seconds.items() if name not in done)
        self._slots, self._began, self._here = slots, time.monotonic(), 0.0

    def note(self, name: str) -> None:
        """Counts a cell as finished."""
        if name not in self.done:
            self.done.add(name)
            self._here += self._seconds[name]
            self._left -= self._seconds[name]

    def event(self) -> Progress:
        """Returns the progress event, with the time left by what the cells of this run took."""
        seconds = (time.monotonic() - self._began) / self._here * self._left if self._here else None
        return Progress("study", len(self.done), len(self._seconds), "cell", seconds_left=seconds)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Keeps a second process of this machine from running the same study; the system ends the lock of a killed one."""
    if store.local is None:
        yield  # object stores have no locks; two runs would only do work twice
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
                f"Another process is running the study {store.place}. Wait for it, or stop it; `spoton study status` "
                "shows how far it is."
            ) from error
        yield
