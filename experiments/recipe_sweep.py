"""Which recipe should be the default for decoder-only models? One factor at a time around a base recipe.

It uses seven tasks of seven kinds in their natural form, each with at most 1,000 training and 200 validation rows.
Every cell (task, variant, steps, seed) is a JSON file under `docs/experiments/recipe_sweep/`. Finished cells never run
again, a killed cell resumes from its checkpoint, and several processes may work at the same time. Rows come from a
folder, as for the catalog.

    python -m experiments.recipe_sweep --data-dir data --steps 100 --seeds 0 --threads 1
    python -m experiments.recipe_sweep --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.cells import cell_parser, claimed
from spoton import Recipe, load_model, tune
from spoton.models import FrozenModel
from spoton.tasks import Task
from spoton.tasks.catalog import load_task
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "recipe_sweep"
BASE = Recipe.preset("decoder")
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
TRAIN, VALIDATION, MAX_TOKENS = 1000, 200, 96


def cell_path(cells: Path, task: str, variant: str, steps: int, seed: int) -> Path:
    """Returns the path of a cell's result."""
    name = "".join(c if c.isalnum() or c in ".=" else "-" for c in variant)
    return cells / f"{task}.{name}.{steps}.{seed}.json"


def task_of(name: str, data_dir: str | None, seed: int) -> Task:
    """Returns a task with the rows that a seed sees."""
    return load_task(name, data_dir=data_dir, form="natural").limited(TRAIN, VALIDATION, 0, seed=seed)


def run_cell(model: FrozenModel, task: Task, recipe: Recipe, path: Path) -> dict[str, Any]:
    """Tunes one prompt and returns what the table needs."""
    began = time.process_time()
    tuned = tune(model, task, recipe, checkpoint=path.with_suffix(".checkpoint"), resume=True)
    card = tuned.prompt.card
    return {
        "task": task.name, "seed": recipe.seed, "validation": card.scores["validation"],
        "uncalibrated": card.scores.get("validation_uncalibrated", card.scores["validation"]),
        "best_step": card.best_step, "evaluations": [e for e in tuned.history if "validation" in e],
        "losses": [round(e["loss"], 4) for e in tuned.history if "loss" in e], "recipe": card.recipe,
        "stopped": tuned.stopped, "message": tuned.message, "cpu_seconds": time.process_time() - began,
        "model": card.model_fingerprint, "dtype": card.dtype, "data": card.data_hash, "versions": card.versions,
    }  # fmt: skip


def wanted_cells(
    variants: Sequence[str], tasks: Sequence[str], steps: Sequence[int], seeds: Sequence[int]
) -> Iterator[tuple[int, int, str, str]]:
    """Returns cells seed by seed, so that a sweep stopped early has compared all variants at least once."""
    for n in steps:
        for seed in seeds:
            for name in tasks:
                for variant in variants:
                    yield n, seed, name, variant


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    import torch

    torch.set_num_threads(arguments.threads)
    model = load_model()
    arguments.cells.mkdir(parents=True, exist_ok=True)
    for n, seed, name, variant in wanted_cells(
        arguments.variants, arguments.tasks, arguments.steps, arguments.seeds
    ):
        path = cell_path(arguments.cells, name, variant, n, seed)
        with claimed(path) as mine:
            if not mine:
                continue
            recipe = BASE.changed(
                steps=n,
                seed=seed,
                evaluate_every=max(30, n // 8),
                max_input_tokens=MAX_TOKENS,
                **VARIANTS[variant],
            )
            record = {"variant": variant, "steps": n} | run_cell(
                model, task_of(name, arguments.data_dir, seed), recipe, path
            )
            write_record(path, record)
        print(
            path.name, record["validation"], f"{record['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True
        )


def table(cells: Path, steps: int) -> str:
    """Returns mean and standard deviation over seeds of the best validation score, as Markdown."""
    lines = [f"| {steps} steps | {' | '.join(TASKS)} | mean | spread |", "|---" * (len(TASKS) + 3) + "|"]
    for variant in VARIANTS:
        row, means, spreads = [], [], []
        for task in TASKS:
            files = sorted(
                cells.glob(cell_path(cells, task, variant, steps, 0).name.replace(".0.json", ".*.json"))
            )
            scores = [next(iter(json.loads(file.read_text())["validation"].values())) for file in files]
            if not scores:
                row.append("…")
                continue
            means.append(statistics.mean(scores))
            if len(scores) > 1:
                spreads.append(statistics.stdev(scores))
            spread = f" ± {spreads[-1]:.1f} ({len(scores)})" if len(scores) > 1 else " (1)"
            row.append(f"{means[-1]:.1f}{spread}")
        if means:
            mean = f"{statistics.mean(means):.1f}" if len(means) == len(TASKS) else "…"
            spread = f"{statistics.mean(spreads):.1f}" if spreads else "…"
            lines.append(f"| {variant} | {' | '.join(row)} | {mean} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    """Runs cells, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 300, 1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write("\n\n".join(table(arguments.cells, n) for n in arguments.steps) + "\n")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
