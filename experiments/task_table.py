"""Scores the embedded model on every task with rows in a data folder: bare, and with a prompt of 200 steps.

Each task has three arms: zero-shot by rank (if the labels are a closed set), zero-shot by generate, and prompt tuning,
whose prompt is scored by both. This shows the catalog at work and is not a benchmark: it has one seed, inputs are cut
to 96 tokens, and with so few test rows chance alone moves a score by several points (the cells hold the intervals).

Each cell has its own JSON file, written last. Finished cells never run again, a killed prompt resumes from its last
evaluation, and tasks with short texts come first. `--table` prints the results so far as Markdown.

    SPOTON_DATA_DIR=data python -m experiments.task_table --threads 1
    SPOTON_DATA_DIR=data python -m experiments.task_table --tasks sst2,rte
    SPOTON_DATA_DIR=data python -m experiments.task_table --table
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.cells import claimed
from spoton import Recipe, evaluate, load_model, load_task, tune
from spoton.evaluation.intervals import score_intervals
from spoton.evaluation.score import Mode
from spoton.models import FrozenModel
from spoton.prompts import SoftPrompt
from spoton.tasks import Task, TaskInfo, compute, list_tasks
from spoton.tuning.record import versions, write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "task_table"
ARMS = ("zero-shot-rank", "zero-shot-generate", "prompt-tuning")
# 4 examples of at most 96 tokens a step: on one slow core, two minutes for a task of short texts, five for long texts.
RECIPE = Recipe(steps=200, batch_size=4, evaluate_every=100, max_input_tokens=96, seed=0)
VALIDATION, TEST = 40, 120
# Fewer, since answers to open targets are generated token by token, in every evaluation.
OPEN_VALIDATION, OPEN_TEST = 16, 48


def tasks_with_rows(folder: Path) -> list[TaskInfo]:
    """Returns the tasks of the catalog that have their own folder (`superglue_rte` uses the folder of `rte`)."""
    return [info for info in list_tasks() if (folder / info.name / "train.jsonl").is_file()]


def cell_path(cells: Path, task: str, arm: str) -> Path:
    """Returns the path of a cell's result."""
    return cells / f"{task}.{arm}.json"


def sized(task: Task, divisor: int) -> Task:
    """Returns the task with few validation and test rows; keeps all training rows."""
    validation, test = (VALIDATION, TEST) if task.labels is not None else (OPEN_VALIDATION, OPEN_TEST)
    return task.limited(validation=max(2, validation // divisor), test=max(2, test // divisor))


def by_length(tasks: Sequence[Task]) -> list[Task]:
    """Returns the tasks, those with short texts first."""
    return sorted(
        tasks, key=lambda task: sum(len(row.input) for row in task.train[:200]) / len(task.train[:200])
    )


def run_cell(model: FrozenModel, task: Task, arm: str, recipe: Recipe, path: Path) -> dict[str, Any]:
    """Runs one cell and returns its result; a prompt's checkpoint is next to it until the result is written."""
    start = time.monotonic()
    closed: list[Mode] = ["rank", "generate"] if task.labels is not None else ["generate"]
    prompt: SoftPrompt | None = None
    tuned: dict[str, Any] = {}
    if arm == "prompt-tuning":
        found = tune(model, task, recipe, checkpoint=path.with_suffix(".checkpoint"), resume=True)
        prompt, card = found.prompt, found.prompt.card
        tuned = {
            "recipe": card.recipe, "best_step": card.best_step, "validation": card.scores["validation"],
            "stopped": found.stopped, "history": found.history,
        }  # fmt: skip
        if found.stopped == "interrupted":
            raise KeyboardInterrupt
    modes = closed if prompt is not None else [mode for mode in closed if arm.endswith(mode)]
    scores = {}
    for mode in modes:
        scored = evaluate(model, prompt, task.test, task, mode, max_input_tokens=recipe.max_input_tokens)
        scores[mode] = {
            "scores": scored.scores,
            "interval_95": {
                name: one.to_json()
                for name, one in score_intervals(
                    task.metrics, scored.predictions, task.test, task.labels
                ).items()
            },
            "no_label": sum(answer is None for answer in scored.predictions),
            "truncated": scored.truncated,
        }
    return {
        "task": task.name, "family": task.family, "arm": arm, "metric": task.metric, "majority": majority(task),
        "test": scores, **tuned, "splits": task.splits(), "protocol": task.protocol, "source": task.source,
        "data": task.data_hash(), "model": model.fingerprint, "max_input_tokens": recipe.max_input_tokens,
        "steps": recipe.steps, "seconds": round(time.monotonic() - start, 1), "versions": versions(),
    }  # fmt: skip


def majority(task: Task) -> float | None:
    """Returns the score of answering every test row with the commonest training target; None for open targets."""
    if task.labels is None:
        return None
    ((answer, _),) = Counter(row.target for row in task.train).most_common(1)
    targets = [row.target for row in task.test]
    return compute(task.metrics, [answer] * len(targets), targets, task.labels, examples=task.test)[
        task.metric
    ]


def run(model: FrozenModel, tasks: Sequence[Task], cells: Path, recipe: Recipe) -> None:
    """Runs every cell that has no result and no living worker."""
    cells.mkdir(parents=True, exist_ok=True)
    for task in by_length(tasks):
        for arm in ARMS:
            path = cell_path(cells, task.name, arm)
            if arm == "zero-shot-rank" and task.labels is None:
                continue
            if path.exists():
                require_same(path, recipe, task)
            with claimed(path) as mine:
                if not mine:
                    continue
                record = run_cell(model, task, arm, recipe, path)
                write_record(path, record)
            print(path.name, record["test"], f"{record['seconds']:.0f} s", file=sys.stderr, flush=True)


def require_same(path: Path, recipe: Recipe, task: Task) -> None:
    """Refuses to mix cells of other sizes in one table."""
    cell = json.loads(path.read_text())
    found = cell["steps"], cell["max_input_tokens"], cell["data"]
    wanted = recipe.steps, recipe.max_input_tokens, task.data_hash()
    if found != wanted:
        raise SystemExit(
            f"{path} was run with (steps, tokens, data) {found}, not {wanted}. Remove it, or name another --cells."
        )


def table(names: Sequence[str], cells: Path) -> str:
    """Returns the main metric of every task as Markdown; marks cells that have not run yet."""
    columns = (
        "task", "family", "metric", "majority class", "zero-shot rank", "zero-shot generate", "prompt tuning rank",
        "prompt tuning generate", "test rows",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * 3 + "|--:" * (len(columns) - 3) + "|"]
    families = {info.name: info for info in list_tasks()}
    for name in sorted(names, key=lambda name: (families[name].family, name)):
        info = families[name]
        there = {
            arm: json.loads(path.read_text())
            for arm in ARMS
            if (path := cell_path(cells, name, arm)).exists()
        }
        some: dict[str, Any] = next(iter(there.values()), {})
        shown = [
            _score(there.get(arm), mode) if mode == "generate" or info.labels is not None else "-"
            for arm, mode in (
                ("zero-shot-rank", "rank"), ("zero-shot-generate", "generate"), ("prompt-tuning", "rank"),
                ("prompt-tuning", "generate"),
            )
        ]  # fmt: skip
        constant = some.get("majority")
        majority_class = "-" if info.labels is None else "not run" if constant is None else f"{constant:.1f}"
        metric = info.scored_by[0]
        metric = f"mean of {', '.join(info.metrics)}" if metric == "mean" else metric
        rows = some.get("splits", {}).get("test", "")
        lines.append(
            f"| {name} | {info.family} | {metric} | {majority_class} | {' | '.join(shown)} | {rows} |"
        )
    return "\n".join(lines)


def _score(cell: dict[str, Any] | None, mode: Mode) -> str:
    return "not run" if cell is None else f"{cell['test'][mode]['scores'][cell['metric']]:.1f}"


def main() -> None:
    """Runs cells, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", help="only these, with commas between them")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of this process")
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="tuning steps")
    parser.add_argument("--divisor", type=int, default=1, help="score and look at so many times fewer rows")
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("SPOTON_DATA_DIR") or "")
    names = (
        arguments.tasks.split(",") if arguments.tasks
        else [info.name for info in tasks_with_rows(folder)] if os.environ.get("SPOTON_DATA_DIR")
        else sorted({path.name.split(".")[0] for path in arguments.cells.glob("*.json")})
    )  # fmt: skip
    if not names:
        raise SystemExit(
            "There is no task to run. Name a folder of rows with SPOTON_DATA_DIR, or tasks with --tasks."
        )
    if arguments.table:
        sys.stdout.write(table(names, arguments.cells) + "\n")
        return
    torch.set_num_threads(arguments.threads)
    steps = arguments.steps
    recipe = RECIPE.changed(steps=steps, evaluate_every=min(RECIPE.evaluate_every, steps))
    tasks = [sized(load_task(name), arguments.divisor) for name in names]
    run(load_model(), tasks, arguments.cells, recipe)


if __name__ == "__main__":
    main()
