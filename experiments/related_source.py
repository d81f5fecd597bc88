"""Does a source that has learned its task help a related target with few rows, and does it help because it is related?

Inference targets with at most 256 training rows are tuned with the default recipe from four starts, at equal steps:
from scratch (the task in words), from the MNLI prompt, from the SST-2 prompt (a control that has learned something
else), and from noise of the MNLI prompt's scale. Every cell (target, start, seed) is a JSON file under
`docs/experiments/related_source/`. Finished cells never run again, a folder with cells of other rows, another recipe or
model is refused, and killed cells resume from their last evaluation. The seed also draws the rows. The first seed also
scores the untuned starts. With `--together N` a process tunes up to N cells in every pass through the model, which a
GPU needs to be busy.

    python -m experiments.related_source --data-dir data --threads 1
    python -m experiments.related_source --data-dir data --together 12 --device cuda
    python -m experiments.related_source --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.cells import (
    Stopwatch,
    cell_parser,
    claimed_together,
    facts_of,
    model_of,
    require_alike,
    require_same,
    scored_record,
    speed_of,
    spread,
    tuned_together,
)
from spoton import Recipe, evaluate
from spoton.errors import DivergenceError
from spoton.evaluation.calibration import fit_calibration, gold_indices
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, starter_library
from spoton.prompts.card import Parent
from spoton.tasks import Task
from spoton.tasks.catalog import load_task
from spoton.tuning import Job, Tuned
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "related_source"
RECIPE = Recipe.preset("decoder", steps=100, evaluate_every=20, max_input_tokens=96)
TARGETS = ("sick", "scitail", "rte", "cb")
STARTS: dict[str, str] = {"scratch": "", "mnli": "mnli", "sst2": "sst2", "noise": ""}
"""Name of a start -> the source prompt that it is; empty for the others."""
TRAIN, VALIDATION, TEST, CALIBRATION = 256, 100, 250, 128


def start_of(name: str, library: PromptLibrary, seed: int) -> tuple[Tensor | None, list[Parent]]:
    """Returns the matrix `[P, D]` of a start, and its parents; None is the recipe's own start."""
    if name == "scratch":
        return None, []
    prompt = library.get(STARTS[name] or "mnli")
    if name == "noise":
        value = prompt.value
        chance = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
        return chance * value.pow(2).mean().sqrt(), []
    return prompt.value, [Parent(name=prompt.card.name, weight=1.0, hash=prompt.content_hash())]


def untuned(model: FrozenModel, task: Task, start: Tensor, limit: int) -> dict[str, float]:
    """Returns the test accuracy of a start before any step: raw, and with a calibration fitted on training rows."""
    rows = task.train[:CALIBRATION]
    seen = evaluate(model, start, rows, task, max_input_tokens=limit)
    assert task.labels is not None
    assert seen.label_scores is not None
    fitted = fit_calibration(seen.label_scores, gold_indices([row.target for row in rows], task.labels))
    found = evaluate(model, start, task.test, task, max_input_tokens=limit, calibration=fitted)
    raw = found if found.uncalibrated is None else found.uncalibrated
    return {"raw": raw.score, "calibrated": found.score}


class Cell(NamedTuple):
    """What decides a cell."""

    target: str
    start: str
    seed: int


def run_cells(
    model: FrozenModel,
    cells: Mapping[Path, tuple[Cell, Task]],
    library: PromptLibrary,
    recipe: Recipe = RECIPE,
) -> None:
    """Tunes one prompt per cell, all of them in shared passes, scores each once on its test rows, and records it.

    A run that diverges is reported and leaves no record.
    """
    watch = Stopwatch(model, len(cells))
    jobs = []
    for path, (cell, task) in cells.items():
        initial, parents = start_of(cell.start, library, cell.seed)
        checkpoint = path.with_suffix(".checkpoint")
        own = recipe.changed(seed=cell.seed)
        jobs.append(Job(task, own, initial, parents, checkpoint=checkpoint, resume=True))
    results = tuned_together(model, jobs)
    for (path, (cell, _)), job, tuned in zip(cells.items(), jobs, results, strict=True):
        if isinstance(tuned, DivergenceError):
            print(path.name, tuned, file=sys.stderr, flush=True)
            continue
        record = {"start": cell.start} | record_of(model, job, tuned) | watch.spent()
        write_record(path, record)
        told = f"{record['cpu_seconds']:.0f} CPU s, {len(cells)} together"
        print(path.name, record["test"], told, file=sys.stderr, flush=True)


def record_of(model: FrozenModel, job: Job, tuned: Tuned) -> dict[str, Any]:
    """Returns what the table needs of a run; the first seed also scores its start untuned."""
    before = tuned.prompt.start if job.initial is None else job.initial
    first = job.recipe.seed == 0 and before is not None
    return scored_record(model, job.task, tuned) | {
        "target": job.task.name, "seed": job.recipe.seed,
        "untuned": untuned(model, job.task, before, job.recipe.max_input_tokens) if first else None,
    }  # fmt: skip


def task_of(name: str, data_dir: str | None, seed: int) -> Task:
    """Returns a target with the rows that a seed sees."""
    task = load_task(name, data_dir=data_dir, form="natural")
    return task.limited(TRAIN, VALIDATION, TEST, seed=seed)


def planned(model: FrozenModel, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record has to hold, see `require_alike`."""
    return {
        "recipe": RECIPE.changed(seed=record["seed"]).model_dump(),
        "model_fingerprint": model.fingerprint,
    }


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    library = PromptLibrary(arguments.library) if arguments.library else starter_library()
    model = model_of(arguments)
    arguments.cells.mkdir(parents=True, exist_ok=True)
    require_alike(arguments.cells, partial(planned, model))
    task = cache(partial(task_of, data_dir=arguments.data_dir))
    wanted = {
        arguments.cells / f"{target}.{start}.{seed}.json": Cell(target, start, seed)
        for target in arguments.targets
        for seed in arguments.seeds
        for start in arguments.starts
    }
    for path, cell in wanted.items():
        if path.exists():
            rows = task(cell.target, seed=cell.seed)
            require_same(path, facts_of(model, rows, RECIPE.changed(seed=cell.seed)))
    for mine in claimed_together(wanted, arguments.together):
        asked = {path: wanted[path] for path in mine}
        cells = {path: (cell, task(cell.target, seed=cell.seed)) for path, cell in asked.items()}
        run_cells(model, cells, library)


def table(cells: Path) -> str:
    """Returns test accuracy by target and start as Markdown: mean and deviation over seeds, untuned, and speed.

    The last column has the steps until a start reaches scratch's best validation score, over the seeds that do.
    """
    columns = (
        "target", "start", "one answer", "untuned, calibrated", "test", "without calibration", "seeds",
        "steps to scratch's best",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---|---" + "|--:" * 6 + "|"]
    for target in TARGETS:
        scratch = _cells(cells, target, "scratch")
        for start in STARTS:
            found = _cells(cells, target, start)
            if not found:
                continue
            row = [
                target, start, f"{statistics.mean(one['majority'] for one in found.values()):.1f}",
                next((f"{one['untuned']['calibrated']:.1f}" for one in found.values() if one["untuned"]), ""),
                *(spread([one[key] for one in found.values()]) for key in ("test", "uncalibrated")),
                str(len(found)), speed_of(scratch, found)[0],
            ]  # fmt: skip
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cells(cells: Path, target: str, start: str) -> dict[int, dict[str, Any]]:
    """Returns the cells of a target and start by seed."""
    found = [json.loads(path.read_text()) for path in sorted(cells.glob(f"{target}.{start}.*.json"))]
    return {one["seed"]: one for one in found}


def main() -> None:
    """Runs cells, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument(
        "--library", type=Path, help="folder of the source prompts; not given: the starter library"
    )
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--together", type=int, default=1, help="cells that share every pass, at most")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(arguments.cells) + "\n")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
