"""Running a study: what is ready goes to the executor, what failed is tried again, what is finished never runs twice.

The folder is the only memory. A run that is killed is gone on with by running it again; cells of a study that is
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
from spoton.sealing import unsealed_json
from spoton.study.plan.cells import Cell
from spoton.study.run.executors import Executor, Group, Outcome
from spoton.study.run.store import Store

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
    """

    cells: tuple[Planned, ...]
    finished: dict[str, float]
    failed: dict[str, str]

    @property
    def left(self) -> list[Planned]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.name not in self.finished]

    @property
    def seconds_left(self) -> float:
        """Seconds of one worker for what is left: predictions, scaled by how right they were so far."""
        said = sum(cell.seconds for cell in self.cells if cell.name in self.finished)
        scale = sum(self.finished.values()) / said if said else 1.0
        return scale * sum(cell.seconds for cell in self.left)

    def to_json(self) -> dict[str, Any]:
        """Counts by kind, what failed, and the time left."""
        counts = Counter(cell.kind for cell in self.cells)
        done = Counter(cell.kind for cell in self.cells if cell.name in self.finished)
        return {
            "cells": len(self.cells), "finished": len(self.finished),
            "kinds": {kind: {"cells": n, "finished": done[kind]} for kind, n in counts.items()},
            "failed": self.failed, "seconds_left": self.seconds_left,
        }  # fmt: skip


def write_plan(store: Store, cells: Sequence[Cell], predicted: Callable[[Cell], float]) -> list[Planned]:
    """Writes the list of cells into the folder, so that status and analysis need neither model nor rows."""
    plan = [Planned(cell.name, cell.kind, cell.words, predicted(cell)) for cell in cells]
    store.write(PLAN, (json.dumps([asdict(one) for one in plan], indent=1) + "\n").encode())
    return plan


def read_plan(store: Store) -> list[Planned]:
    """The list of cells.

    Raises:
        StudyError: The study was not planned yet, or the list is damaged.
    """
    data = store.read(PLAN)
    if data is None:
        raise StudyError(
            f"{store.place} has no {PLAN}, so its cells are not known. `spoton study plan {store.place}` writes it."
        )
    try:
        return [Planned(**one) for one in json.loads(data)]
    except (ValueError, TypeError) as error:
        raise StudyError(
            f"{store.place}/{PLAN} is damaged ({error}). `spoton study plan {store.place}` writes it again."
        ) from error


def status_of(store: Store, plan: Sequence[Planned]) -> Status:
    """How far a study is, from its folder alone."""
    names = {cell.name for cell in plan}
    finished = store.finished() & names
    failed = {
        name: str(document_of(store, f"failures/{name}.json").get("error", ""))
        for name in sorted((store.names("failures", ".json") & names) - finished)
    }
    seconds = {
        name: float(document_of(store, f"cells/{name}.json").get("seconds", 0.0)) for name in sorted(finished)
    }
    return Status(tuple(plan), seconds, failed)


def document_of(store: Store, name: str) -> dict[str, Any]:
    """A JSON file of the folder.

    Raises:
        StudyError: It is damaged, which no crash of ours leaves behind.
    """
    try:
        data = store.read(name)
        found = {} if data is None else unsealed_json(data)
    except ValueError as error:
        raise StudyError(
            f"{store.place}/{name} is damaged ({error}). Remove it to have it made again."
        ) from error
    return found


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
        done = set(status_of(store, plan).finished)
        waiting = _groups(cells, together)
        attempts: dict[str, int] = {}
        weights = {cell.name: cell.seconds for cell in plan}
        began, at_start, free = time.monotonic(), set(done), executor.slots
        try:
            while True:
                for group in [g for g in waiting if _ready(g, done)]:
                    if not free:
                        break
                    waiting.remove(group)
                    todo = tuple(cell for cell in group if cell.name not in done)
                    if todo:
                        executor.submit(group if group[0].halving else todo)
                        free -= 1
                if free == executor.slots:
                    return status_of(store, plan)
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
        most = len(cells) if cell.halving else together  # those that are compared are tuned together
        if (
            cell.kind == "transfer" and 0 < len(last) < most
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
    finished = store.finished()
    left = [cell for cell in outcome.group if cell.name not in finished]
    for cell in left:
        attempts[cell.name] = attempts.get(cell.name, 0) + 1
        error = outcome.error or "It ended without a result and without an error."
        record = {"name": cell.name, "words": cell.words, "attempts": attempts[cell.name], "error": error}
        store.write(f"failures/{cell.name}.json", (json.dumps(record, indent=1) + "\n").encode())
        if attempts[cell.name] < tries and not cell.halving:
            waiting.insert(0, (cell,))  # alone: whatever it was, it shall not take others with it
    if any(cell.halving and attempts[cell.name] < tries for cell in left):
        waiting.insert(0, outcome.group)
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
