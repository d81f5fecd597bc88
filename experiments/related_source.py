"""Does a source that has learned its task help a related target with few rows, and does it help because it is related?

Inference targets with at most 256 training rows are tuned with the default recipe from four starts, at equal steps:
from scratch (the task in words), from the MNLI prompt, from the SST-2 prompt (a control that has learned something
else), and from noise of the MNLI prompt's scale. Every cell (target, start, seed) is a JSON file under
`docs/experiments/related_source/`. Finished cells never run again, and killed cells resume from their last evaluation.
The seed also draws the rows. The first seed also scores the untuned starts.

    python -m experiments.related_source --data-dir data --threads 1
    python -m experiments.related_source --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.cells import cell_parser, claimed, spread
from spoton import Recipe, evaluate, load_model, tune
from spoton.evaluation.calibration import fit_calibration, gold_indices
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, starter_library
from spoton.prompts.card import Parent
from spoton.tasks import Task
from spoton.tasks.catalog import load_task
from spoton.transfer.speed import speed
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


def run_cell(
    model: FrozenModel, task: Task, start: str, library: PromptLibrary, recipe: Recipe, path: Path
) -> dict[str, Any]:
    """Tunes one prompt and scores it once on the test rows."""
    began = time.process_time()
    initial, parents = start_of(start, library, recipe.seed)
    tuned = tune(
        model, task, recipe, initial=initial, parents=parents,
        checkpoint=path.with_suffix(".checkpoint"), resume=True,
    )  # fmt: skip
    test = evaluate(model, tuned.prompt, task.test, task)
    targets = [row.target for row in task.test]
    before = tuned.prompt.start if initial is None else initial
    return {
        "target": task.name, "start": start, "seed": recipe.seed, "steps": tuned.steps, "test": test.score,
        "uncalibrated": test.score if test.uncalibrated is None else test.uncalibrated.score,
        "untuned": None if recipe.seed or before is None else untuned(model, task, before, recipe.max_input_tokens),
        "majority": 100 * max(map(targets.count, set(targets))) / len(targets),
        "validation": tuned.prompt.card.scores["validation"], "best_step": tuned.prompt.card.best_step,
        "evaluations": [entry for entry in tuned.history if "validation" in entry],
        "losses": [round(entry["loss"], 4) for entry in tuned.history if "loss" in entry],
        "splits": task.splits(), "recipe": tuned.prompt.card.recipe, "data_hash": task.data_hash(),
        "parents": [parent.model_dump() for parent in parents], "versions": tuned.prompt.card.versions,
        "model_fingerprint": model.fingerprint, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    torch.set_num_threads(arguments.threads)
    library = PromptLibrary(arguments.library) if arguments.library else starter_library()
    model = load_model()
    arguments.cells.mkdir(parents=True, exist_ok=True)
    wanted = [
        (t, seed, start) for t in arguments.targets for seed in arguments.seeds for start in arguments.starts
    ]
    for target, seed, start in wanted:
        path = arguments.cells / f"{target}.{start}.{seed}.json"
        with claimed(path) as mine:
            if not mine:
                continue
            task = load_task(target, data_dir=arguments.data_dir, form="natural")
            task = task.limited(TRAIN, VALIDATION, TEST, seed=seed)
            record = run_cell(model, task, start, library, RECIPE.changed(seed=seed), path)
            write_record(path, record)
        print(path.name, record["test"], f"{record['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True)


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
                str(len(found)), _arrival(scratch, found),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cells(cells: Path, target: str, start: str) -> dict[int, dict[str, Any]]:
    """Returns the cells of a target and start by seed."""
    found = [json.loads(path.read_text()) for path in sorted(cells.glob(f"{target}.{start}.*.json"))]
    return {one["seed"]: one for one in found}


def _arrival(scratch: dict[int, dict[str, Any]], found: dict[int, dict[str, Any]]) -> str:
    seeds = sorted(set(scratch) & set(found))
    before, after = ([cells[seed]["evaluations"] for seed in seeds] for cells in (scratch, found))
    reached = speed(before, after, probe=0) if seeds else None
    if reached is None:
        return ""
    if reached.transfer_steps is None:
        return f"never (0 of {len(seeds)})"
    return f"{reached.transfer_steps.mean:.0f} ({reached.reached} of {len(seeds)})"


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
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(arguments.cells) + "\n")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
