"""Processor time of a study's own work by the number of its cells: planning, running, status.

The cells only write a result of usual size, so this measures what spoton adds to every cell. Writes
`docs/experiments/scale/study.json` and its table in `docs/performance.md`.

    python -m experiments.scale.study                 # 1,000, 10,000 and 100,000 cells; some minutes
    python -m experiments.scale.study --cells 1000
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from experiments.pages import filled
from spoton.sealing import sealed_json
from spoton.study.plan.cell_base import Held, TaskRole
from spoton.study.plan.grid import TaskFacts, cells_of
from spoton.study.plan.study_file import StudyFile
from spoton.study.run.executors import CellGroup, Outcome
from spoton.study.run.scheduler import read_plan, run_cells, status_of
from spoton.study.run.store import Store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECORD = DOCS / "experiments" / "scale" / "study.json"
SIZES = (1_000, 10_000, 100_000)
TARGETS, SEEDS = 50, 3

Value = TypeVar("Value")


class Nothing:
    """An executor whose cells only write a result of usual size.

    Args:
        folder: The study's folder.
        slots: How many groups it takes at a time.
    """

    def __init__(self, folder: Path, slots: int = 8) -> None:
        self.slots, self._cells, self._taken = slots, folder / "cells", list[CellGroup]()
        self._cells.mkdir(parents=True)
        looks = [
            {"step": float(step), "validation": 50.0, "validation_loss": 0.7} for step in range(0, 101, 25)
        ]
        self._usual = {
            "scores": {"validation": 50.0, "test": 50.0}, "seconds": 1.0, "looks": looks,
            "recipe": {f"value_{i}": i / 3 for i in range(24)},
        }  # fmt: skip

    def submit(self, group: CellGroup) -> None:
        """Queues a group."""
        self._taken.append(group)

    def wait(self) -> list[Outcome]:
        """Finishes one group; does not sync to disk, since the worker pays that time."""
        group = self._taken.pop(0)
        for cell in group:
            (self._cells / f"{cell.name}.json").write_bytes(sealed_json(cell.facts() | self._usual))
        return [Outcome(group)]

    def close(self) -> None:
        """Does nothing: nothing runs between two calls."""


def grid(cells: int) -> StudyFile:
    """Returns a study of about this many cells: sources x 50 targets x 3 seeds, and weighted averages."""
    sources = max(2, round(cells / (TARGETS * SEEDS)) - 2)
    return StudyFile.model_validate({
        "seeds": list(range(SEEDS)), "sources": {"tasks": [f"source-{i}" for i in range(sources)]},
        "targets": {"tasks": [f"target-{i}" for i in range(TARGETS)]},
        "retrieval": {"methods": ["weighted-average"], "k": [2]},
    })  # fmt: skip


def facts(role: TaskRole, name: str) -> TaskFacts:
    """Returns the facts of a task without rows."""
    return TaskFacts(f"{role}-{name}", "rank")


def timed(call: Callable[[], Value]) -> tuple[Value, float]:
    """Returns the result of a call, and its processor time in seconds."""
    began = time.process_time()
    value = call()
    return value, time.process_time() - began


def measure(size: int) -> dict[str, Any]:
    """Returns one row of the table."""
    with tempfile.TemporaryDirectory() as place:
        store = Store(place)
        cells, plan = timed(lambda: cells_of(grid(size), Held("f00d", "float32"), facts))
        _, names = timed(lambda: [cell.name for cell in cells])
        _, first = timed(lambda: run_cells(store, cells, Nothing(Path(place))))
        status, seconds = timed(lambda: status_of(store, read_plan(store)))
        if status.left:
            raise RuntimeError(f"{len(status.left)} of {len(cells)} cells were left")
    return {
        "cells": len(cells), "plan": plan + names, "run": first, "status": seconds,
        "run_per_cell_ms": 1000 * first / len(cells),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown."""
    lines = [
        "| cells | plan, s | run, s | run, ms a cell | status, s | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['cells']:,} | {row['plan']:.2f} | {row['run']:.2f} | {row['run_per_cell_ms']:.2f} "
            f"| {row['status']:.2f} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures; writes the record and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    rows = [measure(size) for size in sorted(options.cells)]
    print(table(rows))
    if options.no_write:
        return
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    record = {"python": platform.python_version(), "machine": platform.machine(), "rows": rows}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    page = DOCS / "performance.md"
    page.write_text(filled(page.read_text(), "scale-study", table(rows)))


if __name__ == "__main__":
    main()
