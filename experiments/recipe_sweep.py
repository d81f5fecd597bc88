"""Which recipe should be the default for decoder-only models? One factor at a time around a base recipe.

It uses seven tasks of seven kinds in their natural form, each with at most 1,000 training and 200 validation rows.
Every cell (task, variant, steps, seed) is a JSON file under `docs/experiments/recipe_sweep/`. Finished cells never run
again, a table with cells of another recipe or model is refused, a killed cell resumes from its checkpoint, and several
processes may work at the same time. With `--together N` a process tunes up to N cells in every pass through the model,
which a GPU needs to be busy. Rows come from a folder, as for the catalog.

    python -m experiments.recipe_sweep --data-dir data --steps 100 --seeds 0 --threads 1
    python -m experiments.recipe_sweep --data-dir data --steps 100 --together 32 --device cuda
    python -m experiments.recipe_sweep --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from experiments.cells import (
    Stopwatch,
    cell_parser,
    claimed_together,
    model_of,
    require_alike,
    tuned_together,
)
from spoton import Recipe
from spoton.errors import DivergenceError
from spoton.models import FrozenModel
from spoton.tasks import Task
from spoton.tasks.catalog import load_task
from spoton.tuning import Job, Tuned
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "recipe_sweep"
BASE = Recipe.preset("decoder", length=32)
"""What the preset was when the sweep began. The variant `P=100` is the preset that it led to."""
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "rate 0.003": {"learning_rate": 0.003},
    "rate 0.03": {"learning_rate": 0.03},
    "constant": {"schedule": "constant"},
    "vocabulary": {"init": "vocabulary"},
    "labels": {"init": "labels"},
    "loss over labels": {"loss": "labels"},
    "P=100": {"length": 100},
    "P=16": {"length": 16},
    "P=64": {"length": 64},
    "P=100, rate 0.03": {"length": 100, "learning_rate": 0.03},
    "batch 16": {"batch_size": 16},
    "batch 32": {"batch_size": 32},
    "no average": {"average": 0.0},
    "no clip": {"clip": 0.0},
    "rate auto": {"learning_rate": "auto"},
    "residual": {"reparameterization": "residual"},
    "superposition": {"reparameterization": "superposition"},
    "low rank": {"reparameterization": "low_rank"},
    "first default": {
        "length": 20, "init": "vocabulary", "learning_rate": 0.05, "schedule": "constant", "warmup": 0, "clip": 0.0,
        "average": 0.0, "calibrate": "none", "select": "score", "loss": "tokens",
    },
}  # fmt: skip
TASKS = ("sst2", "trec", "tweet_eval_emotion", "ag_news", "medical_subject", "mrpc", "mnli")
"""Sentiment, question type, emotion, topic, many classes, paraphrase, inference; the cheapest first."""
STEPS = (100, 300, 1000)
TRAIN, VALIDATION, MAX_TOKENS = 1000, 200, 96


def cell_path(cells: Path, task: str, variant: str, steps: int, seed: int) -> Path:
    """Returns the path of a cell's result."""
    name = "".join(c if c.isalnum() or c in ".=" else "-" for c in variant)
    return cells / f"{task}.{name}.{steps}.{seed}.json"


def task_of(name: str, data_dir: str | None, seed: int) -> Task:
    """Returns a task with the rows that a seed sees."""
    return load_task(name, data_dir=data_dir, form="natural").limited(TRAIN, VALIDATION, 0, seed=seed)


class Cell(NamedTuple):
    """What decides a cell."""

    task: str
    variant: str
    steps: int
    seed: int

    @property
    def recipe(self) -> Recipe:
        """The recipe of the variant."""
        return BASE.changed(
            steps=self.steps, seed=self.seed, evaluate_every=max(30, self.steps // 8),
            max_input_tokens=MAX_TOKENS, **VARIANTS[self.variant],
        )  # fmt: skip


def run_cells(model: FrozenModel, cells: Mapping[Path, tuple[Cell, Task]]) -> None:
    """Tunes one prompt per cell, all of them in shared passes, and writes what the table needs.

    A run that diverges is reported and leaves no record.
    """
    watch = Stopwatch(model, len(cells))
    jobs = [
        Job(task, cell.recipe, checkpoint=path.with_suffix(".checkpoint"), resume=True)
        for path, (cell, task) in cells.items()
    ]
    for (path, (cell, _)), tuned in zip(cells.items(), tuned_together(model, jobs), strict=True):
        if isinstance(tuned, DivergenceError):
            print(path.name, tuned, file=sys.stderr, flush=True)
            continue
        record = {"variant": cell.variant, "steps": cell.steps} | record_of(tuned) | watch.spent()
        write_record(path, record)
        told = f"{record['cpu_seconds']:.0f} CPU s, {len(cells)} together"
        print(path.name, record["validation"], told, file=sys.stderr, flush=True)


def record_of(tuned: Tuned) -> dict[str, Any]:
    """Returns what the table needs of a run."""
    card = tuned.prompt.card
    return {
        "task": card.task, "seed": card.seed, "validation": card.scores["validation"],
        "uncalibrated": card.scores.get("validation_uncalibrated", card.scores["validation"]),
        "best_step": card.best_step, "evaluations": [e for e in tuned.history if "validation" in e],
        "losses": [round(e["loss"], 4) for e in tuned.history if "loss" in e], "recipe": card.recipe,
        "stopped": tuned.stopped, "message": tuned.message,
        "model": card.model_fingerprint, "dtype": card.dtype, "data": card.data_hash, "versions": card.versions,
    }  # fmt: skip


def wanted_cells(
    variants: Sequence[str], tasks: Sequence[str], steps: Sequence[int], seeds: Sequence[int]
) -> Iterator[Cell]:
    """Returns cells seed by seed, so that a sweep stopped early has compared all variants at least once."""
    for n in steps:
        for seed in seeds:
            for name in tasks:
                for variant in variants:
                    yield Cell(name, variant, n, seed)


def groups(cells: Iterable[Cell], together: int) -> Iterator[tuple[list[Cell], int]]:
    """Yields lists of cells that may share passes, and how many of them at most: those of the same steps.

    A rate that is chosen while tuning drops rates by halving, which compares all runs of a pass. Such cells run alone.
    """
    for _, same in groupby(cells, key=lambda cell: cell.steps):
        found = list(same)
        if together == 1:
            yield found, 1
            continue
        yield [cell for cell in found if cell.recipe.learning_rate != "auto"], together
        yield [cell for cell in found if cell.recipe.learning_rate == "auto"], 1


def planned(model: FrozenModel, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record has to hold, see `require_alike`."""
    recipe = Cell(record["task"], record["variant"], record["steps"], record["seed"]).recipe
    # An open rate is recorded as the rate that was chosen.
    if recipe.learning_rate == "auto":
        recipe = recipe.changed(learning_rate=record["recipe"]["learning_rate"])
    return {"recipe": recipe.model_dump(), "model": model.fingerprint}


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    model = model_of(arguments)
    arguments.cells.mkdir(parents=True, exist_ok=True)
    for steps in arguments.steps:  # each number of steps has a table of its own
        require_alike(arguments.cells, partial(planned, model), f"*.{steps}.*.json")
    task = cache(partial(task_of, data_dir=arguments.data_dir))
    wanted = wanted_cells(arguments.variants, arguments.tasks, arguments.steps, arguments.seeds)
    for cells, most in groups(wanted, arguments.together):
        by_path = {cell_path(arguments.cells, *cell): cell for cell in cells}
        for mine in claimed_together(by_path, most):
            asked = {path: by_path[path] for path in mine}
            run_cells(model, {path: (cell, task(cell.task, seed=cell.seed)) for path, cell in asked.items()})


def table(cells: Path, steps: int) -> str:
    """Returns mean and standard deviation over seeds of the best validation score, as Markdown.

    Of variants with all tasks also the mean of the steps after which a run has 95 % of that score.
    """
    lines = [
        f"| {steps} steps | {' | '.join(TASKS)} | mean | spread | steps to 95 % |",
        "|---" * (len(TASKS) + 4) + "|",
    ]
    for variant in VARIANTS:
        row, means, spreads, soon = [], [], [], []
        for task in TASKS:
            files = sorted(
                cells.glob(cell_path(cells, task, variant, steps, 0).name.replace(".0.json", ".*.json"))
            )
            records = [json.loads(file.read_text()) for file in files]
            scores = [next(iter(record["validation"].values())) for record in records]
            if not scores:
                row.append("…")
                continue
            means.append(statistics.mean(scores))
            soon += [steps_to(0.95, record["evaluations"]) for record in records]
            if len(scores) > 1:
                spreads.append(statistics.stdev(scores))
            spread = f" ± {spreads[-1]:.1f} ({len(scores)})" if len(scores) > 1 else " (1)"
            row.append(f"{means[-1]:.1f}{spread}")
        if means:
            whole = len(means) == len(TASKS)
            mean = f"{statistics.mean(means):.1f}" if whole else "…"
            spread = f"{statistics.mean(spreads):.1f}" if spreads else "…"
            reached = f"{statistics.mean(soon):.0f}" if whole else "…"
            lines.append(f"| {variant} | {' | '.join(row)} | {mean} | {spread} | {reached} |")
    return "\n".join(lines)


def steps_to(share: float, evaluations: Sequence[Mapping[str, float]]) -> float:
    """Returns the step of a run's first evaluation with this share of its best validation score."""
    goal = share * max(one["validation"] for one in evaluations)
    return next(one["step"] for one in evaluations if one["validation"] >= goal)


def tables(cells: Path, steps: Sequence[int] = STEPS) -> str:
    """Returns a table for each number of steps that has cells."""
    return "\n\n".join(table(cells, n) for n in steps if list(cells.glob(f"*.{n}.*.json")))


def main() -> None:
    """Runs cells, or prints the tables."""
    parser = cell_parser(__doc__)
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--together", type=int, default=1, help="cells that share every pass, at most")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(tables(arguments.cells, arguments.steps) + "\n")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
