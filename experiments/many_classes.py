"""What does `adapt` reach on a table with many classes, and what does TF-IDF with logistic regression reach?

Each task is a table as a user has it: 461 rows with the columns `text` and `label`, without a description. `adapt` runs
as the command line runs it when only the table is given, so 47 of the rows are for validation; 500 more rows are the
test split. Sources are those of the starter library, without the one that was tuned on the same texts.

- `question_kinds`: questions of TREC by its 16 most frequent fine types, which have words as names here.
- `medical_subject`: questions of medical exams by their eight subjects.

Every cell (task, seed) is a JSON file under `docs/experiments/many_classes/`. Finished cells never run again, and
killed cells resume. `--peers` runs a sentence encoder and SetFit on the same rows instead, see `setfit_peer.py`.

    python -m experiments.many_classes --data-dir data --threads 1 --seeds 0
    python -m experiments.many_classes --data-dir data --threads 1 --seeds 0 --peers
    python -m experiments.many_classes --table
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments import setfit_peer
from experiments.cells import cell_parser, claimed, model_of, require_alike, spread
from experiments.classical_baseline import SEEDS
from experiments.small_tasks import planned, records, run_cell
from spoton import PromptLibrary, Recipe, resolve_task, starter_library
from spoton.tasks import Task, load_task
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "many_classes"
ROWS, TEST = 461, 500
PEERS = ("encoder", "setfit")
KINDS = {
    "HUM:ind": "person", "HUM:gr": "organization", "LOC:country": "country", "LOC:city": "city", "LOC:other": "place",
    "DESC:def": "definition", "DESC:desc": "description", "DESC:manner": "manner", "DESC:reason": "reason",
    "NUM:count": "number", "NUM:date": "date", "ENTY:cremat": "work of art", "ENTY:animal": "animal",
    "ENTY:food": "food", "ENTY:dismed": "disease", "ENTY:other": "other thing",
}  # fmt: skip
"""The most frequent fine types of TREC -> the word for it here."""
Row = tuple[str, str]
"""A text and its label."""


def questions(data_dir: str | None) -> list[Row]:
    """Returns the questions of TREC's training split that have one of the 16 kinds."""
    folder = data_dir or os.environ.get("SPOTON_DATA_DIR")
    if not folder:
        raise SystemExit("The questions are in a folder of rows: give --data-dir.")
    lines = Path(folder, "trec", "train.jsonl").read_text().splitlines()
    found = [(one["text"], KINDS.get(one["fine_label"])) for one in map(json.loads, lines)]
    return [(text, kind) for text, kind in found if kind is not None]


def exam_questions(data_dir: str | None) -> list[Row]:
    """Returns the questions of all splits, without the line that the catalog's template adds."""
    task = load_task("medical_subject", data_dir=data_dir, form="natural")
    rows = (*task.train, *task.validation, *task.test)
    return [(row.input.removesuffix("\nSubject:"), row.target) for row in rows]


TASKS: Mapping[str, tuple[Callable[[str | None], list[Row]], str]] = {
    "question_kinds": (questions, "trec"),
    "medical_subject": (exam_questions, "medical_subject"),
}
"""Name of a task -> its rows, and the prompt of the starter library that has seen them."""


def table_of(rows: Sequence[Row], seed: int, folder: Path) -> Task:
    """Returns the task that a user's table of 461 of the rows is, with 500 others as its test split."""
    drawn = random.Random(seed).sample(rows, ROWS + TEST)
    for name, part in (("table.csv", drawn[:ROWS]), ("test.csv", drawn[ROWS:])):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    return resolve_task(folder / "table.csv", test=folder / "test.csv", split_seed=seed)


def library_without(name: str, folder: Path) -> PromptLibrary:
    """Returns the starter library without one prompt, copied into a folder."""
    shutil.copytree(starter_library().folder, folder, ignore=shutil.ignore_patterns(f"{name}.safetensors"))
    return PromptLibrary(folder, readonly=True)


def task_of(name: str, seed: int, arguments: argparse.Namespace, folder: Path) -> Task:
    """Returns a task by its name, with files in a folder."""
    return table_of(TASKS[name][0](arguments.data_dir), seed, folder)


def run_peers(arguments: argparse.Namespace) -> None:
    """Runs the sentence encoder and SetFit wherever they have no result and no other process works on it."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # the encoder is in its package
    torch.set_num_threads(arguments.threads)
    folder = arguments.cells / "setfit"
    folder.mkdir(parents=True, exist_ok=True)
    for arm, seed, name in itertools.product(PEERS, arguments.seeds, arguments.tasks):
        path = folder / f"{name}.{arm}.{seed}.json"
        with claimed(path) as mine, tempfile.TemporaryDirectory() as place:
            if not mine:
                continue
            task = task_of(name, seed, arguments, Path(place))
            record = setfit_peer.run_cell(task, seed, tune=arm == "setfit")
            write_record(path, record | {"task": name})
        print(
            path.name, f"{record['test']:.1f} {record['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True
        )


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    model = model_of(arguments)
    arguments.cells.mkdir(parents=True, exist_ok=True)
    require_alike(arguments.cells, partial(planned, model, "similarity", "end"), "*.[0-9].json")
    for seed in arguments.seeds:
        for name in arguments.tasks:
            path = arguments.cells / f"{name}.{seed}.json"
            with claimed(path) as mine, tempfile.TemporaryDirectory() as place:
                if not mine:
                    continue
                task = task_of(name, seed, arguments, Path(place))
                library = library_without(TASKS[name][1], Path(place) / "library")
                recipe = Recipe.preset("decoder", seed=seed)
                record = run_cell(model, task, recipe, "similarity", path, library)
                write_record(path, record | {"task": name, "classes": len(task.labels or ())})
            told = {arm: found["test"] for arm, found in record["scores"].items()}
            print(path.name, told, f"{record['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True)


def table(cells: Path) -> str:
    """Returns test accuracy by task as Markdown: mean and deviation over seeds. `adapt` is the arm that it chose."""
    columns = (
        "task", "classes", "training rows", "majority", "zero-shot", "TF-IDF", "TF-IDF, all rows", "scratch",
        "transfer", "source", "adapt", "encoder", "SetFit", "seeds",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" + "|--:" * 8 + "|---" + "|--:" * 4 + "|"]
    for name in TASKS:
        found = records(cells, f"{name}.[0-9].json")
        peers = [[one["test"] for one in records(cells / "setfit", f"{name}.{arm}.*.json")] for arm in PEERS]
        if found:
            lines.append(f"| {' | '.join(_row(name, found, peers))} |")
    return "\n".join(lines)


def _row(name: str, found: Sequence[Any], peers: Sequence[Sequence[float]]) -> list[str]:
    arms = ("zero_shot", "classical", "prompt_tuning", "transfer")
    zero_shot, classical, scratch, transfer = (
        spread([one["scores"][arm]["test"] for one in found]) for arm in arms
    )
    all_rows = [one["classical_on_all_rows"]["scores"]["test"][one["metric"]] for one in found]
    return [
        name, str(found[0]["classes"]), str(found[0]["splits"]["train"]),
        f"{statistics.mean(one['majority'] for one in found):.1f}", zero_shot, classical, spread(all_rows), scratch,
        transfer, ", ".join(sorted({one["retrieved"][0]["name"] for one in found})),
        spread([one["scores"][one["chosen"]]["test"] for one in found]), *map(spread, peers), str(len(found)),
    ]  # fmt: skip


def main() -> None:
    """Runs cells, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument(
        "--peers", action="store_true", help="run a sentence encoder and SetFit instead of adapt"
    )
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(arguments.cells) + "\n")
    elif arguments.peers:
        run_peers(arguments)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
