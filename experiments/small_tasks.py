"""What does `adapt` reach on small tasks, and what does TF-IDF with logistic regression reach on the same rows?

Ten tasks with 100 or 500 training rows drawn by the seed, 50 validation rows and 250 test rows. `adapt` runs as the
command line runs it when only the data is given: the default recipe, steps by the size of the data, the most similar
source of the starter library, which never includes a prompt of the target itself or of its sentences. `--rank` and
`--calibrate` are those of the command line; give their cells a folder of their own. TF-IDF is fitted twice: on the
training rows, and on training and validation rows together, since the prompts have seen both.

Every cell (task, rows, seed) is a JSON file under `docs/experiments/small_tasks/`. Finished cells never run again,
a folder with cells of other rows, another recipe, ranking or model is refused, and killed cells resume.

    python -m experiments.small_tasks --data-dir data --threads 1 --sizes 100 --seeds 0
    python -m experiments.small_tasks --rank trial --calibrate every --cells docs/experiments/small_tasks/trial
    python -m experiments.small_tasks --table
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from experiments.cells import cell_parser, claimed, facts_of, model_of, require_alike, require_same, spread
from experiments.classical_baseline import SEEDS, SIZES, TASKS
from spoton import PromptLibrary, Recipe, adapt, starter_library
from spoton.evaluation.baseline import classical
from spoton.models import FrozenModel
from spoton.tasks import Task, load_task
from spoton.tasks.majority import majority_scores
from spoton.transfer.arms import Rank
from spoton.tuning.budget import with_budget
from spoton.tuning.recipe import Calibrate
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "small_tasks"
VALIDATION, TEST = 50, 250


def run_cell(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    rank: Rank,
    path: Path,
    library: PromptLibrary | None = None,
) -> dict[str, Any]:
    """Adapts to one task and returns the record of `adapt` with the figures of its neighbour.

    Args:
        model: The frozen model.
        task: The task, with its three splits.
        recipe: How to tune, apart from the steps.
        rank: How sources are ranked.
        path: Path of the result, which the caller writes.
        library: The sources; None: the starter library.
    """
    began = time.process_time()
    out = path.with_suffix(".prompt.safetensors")
    recipe = with_budget(model, task, recipe)
    libraries = [library or starter_library()]
    document = adapt(model, task, libraries, recipe, rank=rank, out=out, overwrite=True).to_json()
    for suffix in (".safetensors", ".json", ".png"):
        out.with_suffix(suffix).unlink()
    for name in ("prompt", "curves"):
        del document[name]
    whole = classical(replace(task, train=(*task.train, *task.validation)), splits=("test",))
    return document | {
        "seed": recipe.seed, "majority": majority_scores(task)["test"], "classical_on_all_rows": whole.to_json(),
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def planned(
    model: FrozenModel, rank: Rank, calibrate: Calibrate, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a record has to hold, see `require_alike`. The budget depends on rows, so it is taken as it is."""
    own = record["recipe"]
    budget = {name: own[name] for name in ("steps", "evaluate_every", "patience")}
    recipe = Recipe.preset("decoder", seed=own["seed"], calibrate=calibrate, **budget)
    return {"recipe": recipe.model_dump(), "model_fingerprint": model.fingerprint, "rank": rank}


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    model = model_of(arguments)
    arguments.cells.mkdir(parents=True, exist_ok=True)
    own = partial(planned, model, arguments.rank, arguments.calibrate)
    # Another name than that of the prompt of an unfinished cell, as the table reads them.
    require_alike(arguments.cells, own, "*.[0-9].json")
    for seed in arguments.seeds:
        for size in arguments.sizes:
            for name in arguments.tasks:
                path = arguments.cells / f"{name}.{size}.{seed}.json"
                task = load_task(name, data_dir=arguments.data_dir, form="natural")
                rows = task.limited(size, VALIDATION, TEST, seed=seed)
                recipe = Recipe.preset("decoder", seed=seed, calibrate=arguments.calibrate)
                if path.exists():
                    facts = facts_of(model, rows, with_budget(model, rows, recipe))
                    require_same(path, facts | {"rank": arguments.rank})
                with claimed(path) as mine:
                    if not mine:
                        continue
                    record = run_cell(model, rows, recipe, arguments.rank, path)
                    write_record(path, record)
                told = {arm: found["test"] for arm, found in record["scores"].items()}
                print(path.name, told, f"{record['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True)


def table(cells: Path) -> str:
    """Returns test accuracy by task and size as Markdown: mean and deviation over seeds.

    `adapt` is the arm that it chose by validation. The last two columns are of `experiments/setfit_peer.py`.
    """
    columns = (
        "task", "rows", "majority", "zero-shot", "TF-IDF", "TF-IDF, all rows", "scratch", "transfer", "source",
        "adapt", "encoder", "SetFit", "seeds",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" + "|--:" * 7 + "|---" + "|--:" * 4 + "|"]
    for name in TASKS:
        for size in SIZES:
            found = records(cells, f"{name}.{size}.[0-9].json")
            if not found:
                continue
            scores = {
                arm: [one["scores"][arm]["test"] for one in found]
                for arm in ("zero_shot", "classical", "prompt_tuning", "transfer")
            }
            all_rows = [one["classical_on_all_rows"]["scores"]["test"][one["metric"]] for one in found]
            peers = [
                [one["test"] for one in records(cells / "setfit", f"{name}.{size}.{arm}.*.json")]
                for arm in ("encoder", "setfit")
            ]
            row = [
                name, size, f"{statistics.mean(one['majority'] for one in found):.1f}", spread(scores["zero_shot"]),
                spread(scores["classical"]), spread(all_rows), spread(scores["prompt_tuning"]),
                spread(scores["transfer"]), ", ".join(sorted({one["retrieved"][0]["name"] for one in found})),
                spread([one["scores"][one["chosen"]]["test"] for one in found]), *map(spread, peers), len(found),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def records(folder: Path, pattern: str) -> list[Any]:
    """Returns the records of the cells whose names match a pattern, in order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]


def main() -> None:
    """Runs cells, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rank", choices=get_args(Rank), default="similarity")
    parser.add_argument("--calibrate", choices=get_args(Calibrate), default="end")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(arguments.cells) + "\n")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
