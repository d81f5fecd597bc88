"""Cells of long experiments: each is a JSON file, runs once in the first process that takes it, and resumes.

The command lines of these experiments share their first options, and their tables one way of writing scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from spoton import evaluate, load_model
from spoton.errors import DivergenceError
from spoton.models import FrozenModel
from spoton.models.loading import DEFAULT_MODEL
from spoton.tasks import Task
from spoton.transfer.speed import speed
from spoton.tuning import Job, Recipe, Tuned, tune_together
from spoton.tuning.tune import tune_job


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Says whether to run a cell here: it has no result, and no living process works on it.

    The lock ends with its process, unlike a file. Once the result is written, the checkpoint next to it is removed.

    Args:
        path: Path of the result, which the caller writes.
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not path.exists()
        if path.exists():
            path.with_suffix(".checkpoint").unlink(missing_ok=True)
    finally:
        lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def claimed_together(paths: Iterable[Path], most: int) -> Iterator[list[Path]]:
    """Yields groups of up to `most` cells that run here, claimed as by `claimed` until the next group is asked for.

    Every path is tried once, in order; what other processes work on is left to them.

    Args:
        paths: Paths of the results, which the caller writes.
        most: Number of cells of a group.
    """
    remaining = iter(paths)
    while True:
        with ExitStack() as held:
            mine: list[Path] = []
            # The number is asked first, for what `next` returns is either claimed or left for good.
            while len(mine) < most and (path := next(remaining, None)) is not None:
                with ExitStack() as one:
                    if one.enter_context(claimed(path)):
                        mine.append(path)
                        held.push(one.pop_all())
            if not mine:
                return
            yield mine


_OTHER = {
    "recipe": "another recipe", "data_hash": "other rows", "model_fingerprint": "another model",
    "model": "another model", "rank": "another ranking",
}  # fmt: skip
"""What a record is of if a field of it is not as wanted."""


def facts_of(model: FrozenModel, task: Task, recipe: Recipe) -> dict[str, Any]:
    """Returns what a record holds that is known before its cell runs, see `require_same`."""
    return {
        "recipe": recipe.model_dump(),
        "data_hash": task.data_hash(),
        "model_fingerprint": model.fingerprint,
    }


def require_same(path: Path, wanted: Mapping[str, Any], option: str = "--cells") -> None:
    """Refuses a finished cell of other rows, another recipe or another model, which would be mixed into one table.

    Args:
        path: Path of the result.
        wanted: What the record has to hold, by field, as a new cell would record it.
        option: The option that names the folder of the results.

    Raises:
        SystemExit: The record holds something else.
    """
    record = json.loads(path.read_text())
    other = [_OTHER[field] for field, value in wanted.items() if record.get(field) != value]
    if other:
        raise SystemExit(f"{path} is of {' and '.join(other)}. Remove it, or name other {option}.")


def require_alike(
    cells: Path, wanted: Callable[[Mapping[str, Any]], Mapping[str, Any]], pattern: str = "*.json"
) -> None:
    """Refuses a folder with finished cells of another recipe or model, which new ones, of other seeds, would join.

    Args:
        cells: Folder of the results.
        wanted: Returns what a record has to hold, by field, as `require_same` takes it.
        pattern: Pattern of the names of the results.

    Raises:
        SystemExit: There is such a cell.
    """
    for path in sorted(cells.glob(pattern)):
        require_same(path, wanted(json.loads(path.read_text())))


def tuned_together(model: FrozenModel, jobs: Sequence[Job]) -> list[Tuned | DivergenceError]:
    """Tunes the prompts of some cells in shared passes.

    Args:
        model: The frozen model.
        jobs: The prompts. A job whose rate is open must be the only one: its own rates share the passes.

    Raises:
        KeyboardInterrupt: The runs were interrupted, so there is nothing to record; checkpoints keep what was done.
    """
    results: list[Tuned | DivergenceError]
    if len(jobs) > 1:
        results = tune_together(model, jobs)
    else:
        try:
            results = [tune_job(model, jobs[0])]
        except DivergenceError as error:
            results = [error]
    if any(isinstance(one, Tuned) and one.stopped == "interrupted" for one in results):
        raise KeyboardInterrupt
    return results


def scored_record(model: FrozenModel, task: Task, tuned: Tuned) -> dict[str, Any]:
    """Scores a tuned prompt once on the test rows, and returns what a table needs of its run."""
    test = evaluate(model, tuned.prompt, task.test, task)
    targets = [row.target for row in task.test]
    card = tuned.prompt.card
    return {
        "test": test.score, "uncalibrated": test.score if test.uncalibrated is None else test.uncalibrated.score,
        "majority": 100 * max(map(targets.count, set(targets))) / len(targets),
        "steps": tuned.steps, "validation": card.scores["validation"], "best_step": card.best_step,
        "evaluations": [entry for entry in tuned.history if "validation" in entry],
        "losses": [round(entry["loss"], 4) for entry in tuned.history if "loss" in entry],
        "splits": task.splits(), "recipe": card.recipe, "data_hash": task.data_hash(),
        "parents": [parent.model_dump() for parent in card.parents], "versions": card.versions,
        "model_fingerprint": model.fingerprint, "dtype": card.dtype,
    }  # fmt: skip


def speed_of(
    scratch: Mapping[int, Mapping[str, Any]], found: Mapping[int, Mapping[str, Any]]
) -> tuple[str, str]:
    """Returns in words how fast the cells of a start are, next to those from scratch, by seed.

    Returns:
        Steps until scratch's best validation score, and in how many of the common seeds it is reached; then how far the
        curve lies above scratch's, in points. Both are empty without evaluations in common.
    """
    seeds = sorted(set(scratch) & set(found))
    before, after = ([cells[seed]["evaluations"] for seed in seeds] for cells in (scratch, found))
    reached = speed(before, after, [0] * len(seeds)) if seeds else None
    if reached is None:
        return "", ""
    steps = "never" if reached.transfer_steps is None else f"{reached.transfer_steps.mean:.0f}"
    return f"{steps} ({reached.reached} of {len(seeds)})", f"{reached.area.mean:+.1f}"


class Stopwatch:
    """Seconds since cells began, which share them."""

    def __init__(self, model: FrozenModel, cells: int) -> None:
        self._model, self._cells = model, cells
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def spent(self) -> dict[str, Any]:
        """Returns what a record says: seconds of all cells that shared the passes, and how many these are.

        What one of them took cannot be told.
        """
        device = self._model.device
        return {
            "cpu_seconds": time.process_time() - self._cpu, "wall_seconds": time.perf_counter() - self._wall,
            "together": self._cells,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        }  # fmt: skip


def cell_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a command line with the options of every experiment that writes cells; each adds its own.

    Args:
        description: The docstring of the experiment, shown as it stands.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder with <task>/train.jsonl; not given: SPOTON_DATA_DIR")
    parser.add_argument("--threads", type=int, default=2, help="processor threads of this process")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto: CUDA if there is one")
    parser.add_argument("--dtype", default="auto", help="of the frozen model: float32, bfloat16, auto")
    parser.add_argument(
        "--memory-share", type=float, help="of the GPU, for this process; not given: all that is free"
    )
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    return parser


def model_of(arguments: argparse.Namespace, name: str = DEFAULT_MODEL) -> FrozenModel:
    """Returns a model as a command line asks for it, and sets the threads of this process."""
    torch.set_num_threads(arguments.threads)
    model = load_model(name, device=arguments.device, dtype=arguments.dtype)
    if arguments.memory_share is not None and model.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(arguments.memory_share, model.device)
    return model


def spread(scores: Sequence[float]) -> str:
    """Returns mean and standard deviation of some scores in words; a single score alone, and nothing for none.

    Examples:
        >>> spread([80.0, 84.0]), spread([80.0]), spread([])
        ('82.0 ± 2.8', '80.0', '')
    """
    if len(scores) < 2:
        return "".join(f"{score:.1f}" for score in scores)
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"
