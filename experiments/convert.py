"""Does a prompt of one model, converted to another, help there as a start?

Prompts of SmolLM2-135M are converted to Gemma 3 270M and the other way round (`spoton.transfer.conversion`). The
prompts of SmolLM2 are those of the starter library. Those of Gemma are tuned first, each on 1,000 rows of its task, as
cells named `source`. Each target cell (direction, task, start, seed) tunes one prompt on 250 rows of the same task for
60 steps of 8: from `scratch` (the task in words), or from the prompt converted by `relative` or `linear`. The seed also
draws the rows. Every cell is a JSON file under `docs/experiments/convert/100_tokens/` (those in the folder above have
prompts of 32 tokens); finished cells never run again, a folder with cells of other rows, another recipe or model is
refused, and killed cells resume from their last evaluation. Loading Gemma from its GGUF file takes most of a minute.

    python -m experiments.convert --data-dir data --gemma gemma-3-270m-q4_k_m.gguf --threads 1
    python -m experiments.convert --data-dir data --gemma gemma-3-270m-q4_k_m.gguf --directions gemma-to-smollm2
    python -m experiments.convert --gemma gemma-3-270m-q4_k_m.gguf --words
    python -m experiments.convert --table --cells docs/experiments/convert

`--words` checks the conversions without any tuning: shared tokens that are no anchors are converted like the rows of a
prompt, and compared with the embedding that the other model has for them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch.nn.functional import normalize

from experiments.cells import (
    Stopwatch,
    cell_parser,
    claimed,
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
from spoton.models import FrozenModel
from spoton.models.loading import DEFAULT_MODEL
from spoton.prompts import PromptLibrary, SoftPrompt, starter_library
from spoton.tasks import Task
from spoton.tasks.catalog import load_task
from spoton.transfer.conversion import (
    CONVERSIONS,
    ConversionMethod,
    convert,
    linear_rows,
    relative_rows,
    shared_tokens,
)
from spoton.tuning import Job
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "convert"
"""The published cells, with prompts of 32 tokens. Those of 100, as the preset has now, are in a folder in it."""
LONGER = CELLS / "100_tokens"
TASKS = ("sst2", "trec", "ag_news", "mnli")
STARTS = ("scratch", *CONVERSIONS)
DIRECTIONS: dict[str, tuple[str, str]] = {
    "smollm2-to-gemma": ("smollm2", "gemma"),
    "gemma-to-smollm2": ("gemma", "smollm2"),
}
"""Name of a direction -> the model of the source prompt, and the model that is tuned for."""
RECIPES = {
    "smollm2": Recipe.preset("decoder", steps=60, evaluate_every=15, max_input_tokens=96),
    # Gemma scales its embeddings, so its rate is in their root mean squares; 0.01 is 0.07 of them on SmolLM2.
    "gemma": Recipe.preset(
        "decoder", steps=60, evaluate_every=15, max_input_tokens=96,
        learning_rate=0.09, rate_unit="embedding_rms",
    ),
}  # fmt: skip
TRAIN, VALIDATION, TEST = 250, 100, 300
HELD_OUT = 200
"""Tokens of `--words`."""
SOURCE_STEPS, SOURCE_TRAIN, SOURCE_VALIDATION = 200, 1000, 200


class Cell(NamedTuple):
    """What decides a cell."""

    direction: str
    task: str
    start: str
    """One of `STARTS`, or `source`: the prompt of the direction's first model."""
    seed: int

    @property
    def model(self) -> str:
        """The model that the cell tunes a prompt for."""
        return DIRECTIONS[self.direction][0 if self.start == "source" else 1]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the cell."""
        recipe = RECIPES[self.model].changed(seed=self.seed)
        return recipe.changed(steps=SOURCE_STEPS, evaluate_every=50) if self.start == "source" else recipe

    @property
    def file(self) -> str:
        """Name of the cell's result."""
        return f"{self.direction}.{self.task}.{self.start}.{self.seed}.json"


class Models(NamedTuple):
    """The two models."""

    smollm2: FrozenModel
    gemma: FrozenModel


def task_of(name: str, data_dir: str | None, seed: int, sizes: tuple[int, int, int]) -> Task:
    """Returns a task with the rows that a seed sees."""
    return load_task(name, data_dir=data_dir, form="natural").limited(*sizes, seed=seed)


def sizes_of(cell: Cell) -> tuple[int, int, int]:
    """Returns how many training, validation and test rows a cell has."""
    return (SOURCE_TRAIN, SOURCE_VALIDATION, TEST) if cell.start == "source" else (TRAIN, VALIDATION, TEST)


def source_of(cell: Cell, cells: Path, library: PromptLibrary) -> SoftPrompt | None:
    """Returns the prompt that a cell converts; None if it is not there."""
    if DIRECTIONS[cell.direction][0] == "smollm2":
        return library.get(cell.task)
    path = (cells / Cell(cell.direction, cell.task, "source", 0).file).with_suffix(".safetensors")
    return SoftPrompt.load(path) if path.is_file() else None


def run_cell(
    models: Models, path: Path, cell: Cell, task: Task, library: PromptLibrary, recipe: Recipe | None = None
) -> None:
    """Tunes the prompt of a cell, scores it once on its test rows, and records it.

    A run that diverges is reported and leaves no record; so does a cell whose source is missing.
    """
    model: FrozenModel = getattr(models, cell.model)
    watch = Stopwatch(model, 1)
    recipe = (recipe or cell.recipe).changed(seed=cell.seed)
    start, untuned = None, None
    if cell.start in CONVERSIONS:
        found = source_of(cell, path.parent, library)
        if found is None:
            told = "its source prompt is not here; tune it (remove the record of its cell if there is one)"
            print(path.name, told, file=sys.stderr, flush=True)
            return
        source: FrozenModel = getattr(models, DIRECTIONS[cell.direction][0])
        start = convert(found, source, model, method=cast(ConversionMethod, cell.start))
        if cell.seed == 0:
            untuned = evaluate(model, start.value, task.test, task).score
    value, parents = (None, []) if start is None else (start.value, start.card.parents)
    checkpoint = path.with_suffix(".checkpoint")
    job = Job(task, recipe, value, parents, checkpoint=checkpoint, resume=True)
    (tuned,) = tuned_together(model, [job])
    if isinstance(tuned, DivergenceError):
        print(path.name, tuned, file=sys.stderr, flush=True)
        return
    if cell.start == "source":
        tuned.prompt.save(path.with_suffix(".safetensors"))
    record = cell._asdict() | {"conversion": None if start is None else start.card.source, "untuned": untuned}
    record |= scored_record(model, task, tuned) | watch.spent()
    write_record(path, record)
    print(path.name, record["test"], f"{record['cpu_seconds']:.0f} CPU s", file=sys.stderr, flush=True)


def words(source: FrozenModel, target: FrozenModel, count: int = HELD_OUT) -> dict[str, dict[str, float]]:
    """Converts the embeddings of some shared tokens through all others, and returns how near each method comes.

    Returns:
        By method: the mean cosine with the target's embedding, and the share, in percent, of tokens whose embedding is
        nearer than that of any other shared token.
    """
    own, other = shared_tokens(source, target)
    before, after = source.token_vectors()[own], normalize(target.token_vectors()[other], dim=1)
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(0))
    held, anchors = order[:count], order[count:]
    found = {}
    for method, rows_of in (("relative", relative_rows), ("linear", linear_rows)):
        cosines = rows_of(before[held], before[anchors], after[anchors]) @ after.T
        nearest = 100 * (cosines.argmax(1) == held).float().mean()
        own_cosine = cosines.gather(1, held[:, None]).mean()
        found[method] = {"cosine": round(float(own_cosine), 3), "nearest": round(float(nearest), 1)}
    return found | {"tokens": {"shared": len(own), "held out": count}}


def wanted_cells(
    directions: Sequence[str], tasks: Sequence[str], starts: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:
    """Returns the cells in the order in which they run: whole seeds first, each source before what it is for."""
    cells: list[Cell] = []
    for direction in directions:
        for seed in seeds:
            for task in tasks:
                if DIRECTIONS[direction][0] == "gemma":
                    cells.append(Cell(direction, task, "source", 0))
                cells += [Cell(direction, task, start, seed) for start in starts]
    return list(dict.fromkeys(cells))


def planned(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record has to hold, see `require_alike`."""
    cell = Cell(record["direction"], record["task"], record["start"], record["seed"])
    return {"recipe": cell.recipe.model_dump()}


def run(arguments: argparse.Namespace) -> None:
    """Runs every cell that has no result and that no other process works on."""
    library = starter_library()
    # The name goes into cards and records, where the place of a file is of no use.
    gemma = replace(model_of(arguments, arguments.gemma), name="gemma-3-270m")
    models = Models(model_of(arguments, DEFAULT_MODEL), gemma)
    arguments.cells.mkdir(parents=True, exist_ok=True)
    if arguments.words:
        pairs = {name: [getattr(models, which) for which in pair] for name, pair in DIRECTIONS.items()}
        found = {name: words(*pair) for name, pair in pairs.items()}
        write_record(arguments.cells / "words.json", found)
        print(json.dumps(found, indent=2))
        return
    require_alike(arguments.cells, planned, "*-to-*.json")
    task = cache(partial(task_of, data_dir=arguments.data_dir))
    for cell in wanted_cells(arguments.directions, arguments.tasks, arguments.starts, arguments.seeds):
        path = arguments.cells / cell.file
        if path.exists():
            rows = task(cell.task, seed=cell.seed, sizes=sizes_of(cell))
            require_same(path, facts_of(getattr(models, cell.model), rows, cell.recipe))
        with claimed(path) as mine:
            if mine:
                rows = task(cell.task, seed=cell.seed, sizes=sizes_of(cell))
                run_cell(models, path, cell, rows, library)


def table(cells: Path) -> str:
    """Returns test accuracy by direction, task and start as Markdown: mean and deviation over seeds, and speed.

    The last columns have the steps until a start reaches scratch's best validation score, over the seeds that do, and
    how far its curve lies above scratch's, in points.
    """
    columns = (
        "direction", "task", "start", "one answer", "untuned", "test", "seeds", "steps to scratch's best",
        "above scratch",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---|---|---" + "|--:" * 6 + "|"]
    for direction in DIRECTIONS:
        for task in TASKS:
            scratch = _cells(cells, direction, task, "scratch")
            for start in STARTS:
                found = _cells(cells, direction, task, start)
                if not found:
                    continue
                arrival, area = speed_of(scratch, found)
                row = [
                    direction, task, start, f"{statistics.mean(one['majority'] for one in found.values()):.1f}",
                    next((f"{one['untuned']:.1f}" for one in found.values() if one["untuned"] is not None), ""),
                    spread([one["test"] for one in found.values()]), str(len(found)),
                    arrival, "" if start == "scratch" else area,
                ]  # fmt: skip
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cells(cells: Path, direction: str, task: str, start: str) -> dict[int, dict[str, Any]]:
    """Returns the cells of a direction, task and start by seed."""
    paths = sorted(cells.glob(f"{direction}.{task}.{start}.*.json"))
    return {one["seed"]: one for one in (json.loads(path.read_text()) for path in paths)}


def main() -> None:
    """Runs cells, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument("--gemma", help="folder or GGUF file of Gemma 3 270M")
    parser.add_argument("--words", action="store_true", help="check the conversions on single tokens")
    parser.add_argument("--cells", type=Path, default=LONGER, help="folder of the results")
    parser.add_argument("--directions", nargs="+", default=list(DIRECTIONS), choices=list(DIRECTIONS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(arguments.cells) + "\n")
    elif arguments.gemma is None:
        parser.error("give the model with --gemma")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
