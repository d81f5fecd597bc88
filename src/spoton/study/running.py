"""Running a study: what is ready goes to the executor, what failed is tried again, what is finished never runs twice.

The folder is the only memory. A run that is killed is gone on with by running it again; cells of a study that is
changed are found under their old names where nothing that decides them has changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoton.errors import StudyError
from spoton.study.executors import Executor, Group, Outcome
from spoton.study.grid import Cell
from spoton.study.store import Store
from spoton.tuning.events import OnEvent, Progress, silent

TRIES = 2
"""How often a cell is tried in one run before it is left as failed."""


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        cells: All of them.
        finished: Names of those with a result.
        failed: Name and traceback of those that failed last time they ran.
        seconds: What each finished cell took, by name.
    """

    cells: tuple[Cell, ...]
    finished: frozenset[str]
    failed: dict[str, str]
    seconds: dict[str, float]

    @property
    def left(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.name not in self.finished]

    def seconds_left(self, predicted: Callable[[Cell], float]) -> float:
        """Seconds of one worker for what is left: predictions, scaled by how right they were so far."""
        known = [
            (predicted(cell), self.seconds[cell.name]) for cell in self.cells if cell.name in self.seconds
        ]
        scale = sum(took for _, took in known) / sum(said for said, _ in known) if known else 1.0
        return scale * sum(predicted(cell) for cell in self.left)

    def to_json(self) -> dict[str, Any]:
        """Counts by kind, and what failed."""
        kinds = dict.fromkeys(cell.kind for cell in self.cells)
        return {
            "cells": len(self.cells), "finished": len(self.finished),
            "kinds": {
                kind: {
                    "cells": sum(cell.kind == kind for cell in self.cells),
                    "finished": sum(cell.kind == kind and cell.name in self.finished for cell in self.cells),
                }
                for kind in kinds
            },
            "failed": self.failed,
        }  # fmt: skip


def status_of(store: Store, cells: Sequence[Cell]) -> Status:
    """How far a study is, from its folder alone."""
    names = {cell.name for cell in cells}
    finished = store.names("cells", ".json") & names
    failed = {}
    for name in sorted(store.names("failures", ".json") & names - finished):
        failed[name] = str(json.loads(store.read(f"failures/{name}.json") or b"{}").get("error", ""))
    seconds = {}
    for name in finished:
        seconds[name] = float(json.loads(store.read(f"cells/{name}.json") or b"{}").get("seconds", 0.0))
    return Status(tuple(cells), frozenset(finished), failed, seconds)


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
        predicted: Seconds that a cell is expected to take, for the time left.
        on_event: Told after every group; an executor in this process tells of steps as well.

    Returns:
        How far the study is now: failed cells, and those that need them, are left.

    Raises:
        StudyError: Another process runs this study.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    with _alone(store):
        done = set(status_of(store, cells).finished)
        waiting = _groups(cells, together)
        attempts: dict[str, int] = {}
        weights = {cell.name: predicted(cell) for cell in cells}
        began, at_start, free = time.monotonic(), set(done), executor.slots
        try:
            while True:
                for group in [g for g in waiting if _ready(g, done)]:
                    if not free:
                        break
                    waiting.remove(group)
                    todo = tuple(cell for cell in group if cell.name not in done)
                    if todo:
                        executor.submit(todo)
                        free -= 1
                if free == executor.slots:
                    return status_of(store, cells)
                for outcome in executor.wait():
                    free += 1
                    done |= _settle(store, outcome, attempts, waiting, tries)
                    on_event(_event(weights, done, at_start, began, executor.slots))
        finally:
            executor.close()


def _groups(cells: Sequence[Cell], together: int) -> list[Group]:
    """Cells in groups; made of all cells, finished or not, so that a resumed run has the same groups."""
    groups: list[Group] = []
    for cell in cells:
        last = groups[-1] if groups else ()
        if (
            cell.kind == "transfer" and 0 < len(last) < together
            and (last[0].kind, last[0].task, last[0].seed) == ("transfer", cell.task, cell.seed)
        ):  # fmt: skip
            groups[-1] = (*last, cell)
        else:
            groups.append((cell,))
    return groups


def _ready(group: Group, done: set[str]) -> bool:
    return all(name in done for cell in group for name in cell.needs)


def _settle(
    store: Store, outcome: Outcome, attempts: dict[str, int], waiting: list[Group], tries: int
) -> set[str]:
    """Names of the cells of a group that are finished now; the others are noted, and tried again if they may be."""
    finished = store.names("cells", ".json")
    left = [cell for cell in outcome.group if cell.name not in finished]
    for cell in left:
        attempts[cell.name] = attempts.get(cell.name, 0) + 1
        error = outcome.error or "It ended without a result and without an error."
        record = {"name": cell.name, "words": cell.words, "attempts": attempts[cell.name], "error": error}
        store.write(f"failures/{cell.name}.json", (json.dumps(record, indent=1) + "\n").encode())
        if attempts[cell.name] < tries:
            waiting.insert(0, (cell,))  # alone: whatever it was, it shall not take others with it
    return {cell.name for cell in outcome.group if cell.name in finished}


def _event(
    weights: dict[str, float], done: set[str], at_start: set[str], began: float, slots: int
) -> Progress:
    """How far the study is, with the time left by what the cells of this run took."""
    here = sum(weights[name] for name in done - at_start)
    left = sum(weight for name, weight in weights.items() if name not in done)
    seconds = (time.monotonic() - began) / here * left if here else None
    return Progress("study", len(done), len(weights), "cell", seconds_left=seconds)


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
