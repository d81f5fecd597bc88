"""Which length, learning rate and optimizer should be the default? One factor at a time around a base recipe.

Three bundled tasks of three families, three seeds, 80 steps of 8 examples, the best of 100 validation examples.
Every cell is a JSON file of its own under ``docs/experiments/recipe_sweep/``; finished cells are never run again, and
several processes may work side by side. ``--table`` prints what is there as Markdown.

    python experiments/recipe_sweep.py --threads 1
    python experiments/recipe_sweep.py --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from spoton import Recipe, load_model, tune
from spoton.tasks.catalog import load_task
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "recipe_sweep"
BASE = Recipe(
    length=20, optimizer="adamw", learning_rate=0.05, steps=80, batch_size=8, key_step=20, evaluate_every=20
)
VARIANTS: dict[str, dict[str, Any]] = {
    "P=20, AdamW 0.05": {},
    "AdamW 0.1": {"learning_rate": 0.1},
    "AdamW 0.02": {"learning_rate": 0.02},
    "Adafactor 0.3": {"optimizer": "adafactor", "learning_rate": 0.3},
    "P=5": {"length": 5},
    "P=50": {"length": 50},
}
TASKS = ("movie_sentiment", "stereoset_bias_type", "medical_subject")
SEEDS = (0, 1, 2)


def cell_path(variant: str, task: str, seed: int) -> Path:
    """Where a cell's result lies."""
    name = "".join(c if c.isalnum() or c in ".=" else "-" for c in variant)
    return CELLS / f"{task}.{name}.{seed}.json"


def run(threads: int) -> None:
    """Runs every cell that has no result and no living worker."""
    import torch

    torch.set_num_threads(threads)
    model = load_model()
    CELLS.mkdir(parents=True, exist_ok=True)
    cells = [(variant, seed, name) for variant in VARIANTS for seed in SEEDS for name in TASKS]
    for variant, seed, name in cells:
        path = cell_path(variant, name, seed)
        claim = path.with_suffix(".claim")
        if path.exists() or claim.exists():
            continue
        claim.touch()
        try:
            task = load_task(name).limited(validation=100, test=0)
            tuned = tune(model, task, BASE.changed(seed=seed, **VARIANTS[variant]))
        finally:
            claim.unlink()
        card = tuned.prompt.card
        write_record(
            path,
            {
                "variant": variant, "task": name, "seed": seed, "validation": card.scores["validation"],
                "best_step": card.best_step, "history": tuned.history, "recipe": card.recipe,
                "stopped": tuned.stopped, "model": card.model_fingerprint, "dtype": card.dtype, "data": card.data_hash,
                "versions": card.versions,
            },
        )  # fmt: skip
        print(path.name, card.scores["validation"], f"{tuned.seconds:.0f} s", file=sys.stderr, flush=True)


def table() -> str:
    """Mean and standard deviation over seeds of the best validation accuracy, as Markdown."""
    lines = [f"| recipe | {' | '.join(TASKS)} | mean |", "|---" * (len(TASKS) + 2) + "|"]
    for variant in VARIANTS:
        cells, means = [], []
        for task in TASKS:
            paths = [path for seed in SEEDS if (path := cell_path(variant, task, seed)).exists()]
            found = [json.loads(path.read_text())["validation"]["accuracy"] for path in paths]
            if len(found) < 2:
                cells.append("…")
                continue
            means.append(statistics.mean(found))
            cells.append(
                f"{means[-1]:.1f} ± {statistics.stdev(found):.1f}" + ("" if len(found) == 3 else " (2 seeds)")
            )
        mean = f"{statistics.mean(means):.1f}" if len(means) == len(TASKS) else "…"
        lines.append(f"| {variant} | {' | '.join(cells)} | {mean} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads of this process")
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table() + "\n")
    else:
        run(arguments.threads)
