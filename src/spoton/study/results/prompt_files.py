"""Reads other people's prompt files: finds the prompts in a folder, with task, seed and matrix.

A file's first bytes decide its format, so that files without a suffix (as T5X and Prompt-Transferability write them)
can be read. Nothing in a file is executed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from spoton.errors import DataError, PromptError
from spoton.exchange.matrix_files import load_prompt_matrix, only_matrix, read_npy, read_pt
from spoton.study.results.study_results import Matrix

MATRIX_SUFFIXES = (".npy", ".pt", ".pth", ".bin", ".safetensors")
_NAMES = "TASK.npy, TASK.SEED.npy or TASK/task_prompt"

# First bytes of a NumPy array; of a zip, as PyTorch writes; of a pickle of PyTorch before 1.6.
_NUMPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK\x03\x04", b"\x80\x02"


def read_prompts(folder: Path | None, tasks: Collection[str] = ()) -> dict[tuple[str, int], Matrix]:
    """Reads every prompt of a folder: files `TASK` or `TASK.SEED`, with any suffix or none, and folders `TASK`.

    The default seed is 0. `TASK_1` is a task of that name: an underscore does not separate a seed. A name that differs
    from a task's only by case belongs to that task.

    Args:
        folder: Folder of the prompts; None: no prompts.
        tasks: The known tasks, so that `TASK.1` can be one of them.

    Raises:
        DataError: The folder is missing or has no prompt, or two prompts have the same task and seed or differ in
            width.
        PromptError: A file is not a prompt.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Give one that holds {_NAMES}.")
    prompts: dict[tuple[str, int], Matrix] = {}
    paths: dict[tuple[str, int], Path] = {}
    for name, path in _files(folder):
        place = _place(name, tasks)
        if place in paths:
            raise DataError(
                f"{folder} has more than one prompt of {place[0]}, seed {place[1]}: {paths[place].relative_to(folder)} "
                f"and {path.relative_to(folder)}. Keep one."
            )
        prompts[place], paths[place] = read_prompt_matrix(path), path
    if not prompts:
        raise DataError(
            f"{folder} holds no prompt. Expected {_NAMES}, or the endings {', '.join(MATRIX_SUFFIXES)}."
        )
    _require_one_width(prompts, paths)
    return prompts


def read_prompt_matrix(path: Path) -> Matrix:
    """Reads a prompt's matrix `[P, D]` by the file's content, not by its name.

    Raises:
        PromptError: The file is damaged, or holds anything else.
    """
    start = _start(path)
    if start.startswith(_NUMPY) or path.suffix == ".npy":
        tensor = read_npy(path)
    elif start.startswith((_ZIP, _PICKLE)) or path.suffix in (".pt", ".pth", ".bin"):
        tensor = only_matrix(path, read_pt(path))
    else:
        tensor = load_prompt_matrix(path)
    return tensor.numpy().astype(np.float32)


def require_known(prompts: Mapping[tuple[str, int], Matrix], tasks: Collection[str]) -> None:
    """Refuses prompts of tasks without scores.

    Raises:
        DataError: Names them, and the tasks they may stand for.
    """
    unknown = sorted({task for task, _ in prompts} - set(tasks))
    if not unknown:
        return
    message = (
        f"There are prompts of {', '.join(unknown)}, but the scores name only {', '.join(sorted(tasks))}. "
        "Name the files as the tasks are named in the table: TASK.npy or TASK.SEED.npy."
    )
    guess = next((name for name in unknown if _without_number(name) in tasks), None)
    if guess is not None:
        task, _, seed = guess.rpartition("_")
        message += f" If {seed} in {guess} is a seed, call the file {task}.{seed}."
    raise DataError(message)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name and file of each prompt."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files_of_task(path)
        elif _is_prompt(path):
            yield _stem(path), path


def _files_of_task(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields the prompts in a task's folder: one of any name, or one per seed (`0.npy`, `seed1.npy`)."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_prompt(path)]
    if len(files) == 1:
        yield folder.name, files[0]
        return
    for path in files:
        seed = _stem(path).lower().removeprefix("seed").lstrip("-_")
        if not seed.isdecimal():
            raise DataError(
                f"{folder} holds {len(files)} prompts: {', '.join(file.name for file in files[:4])}. Expected one, or "
                "one for each seed, called 0.npy, 1.npy and so on."
            )
        yield f"{folder.name}.{seed}", path


def _is_prompt(path: Path) -> bool:
    """Returns whether a file is a prompt: by its suffix, or else by its first bytes."""
    if path.name.startswith("."):
        return False
    return path.suffix in MATRIX_SUFFIXES or _start(path).startswith((_NUMPY, _ZIP, _PICKLE))


def _start(path: Path) -> bytes:
    if not path.is_file():
        raise PromptError(f"{path} is not a regular file. Give the path of a prompt file.")
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise PromptError(f"Cannot read {path}: {error.strerror}. Give the path of a prompt file.") from error


def _stem(path: Path) -> str:
    return path.stem if path.suffix in MATRIX_SUFFIXES else path.name


def _place(name: str, tasks: Collection[str]) -> tuple[str, int]:
    """Returns the task and seed of a name; the whole name if it is a task."""
    whole = _task(name, tasks)
    task, _, seed = name.rpartition(".")
    if whole not in tasks and task and seed.isdecimal():
        return _task(task, tasks), int(seed)
    return whole, 0


def _task(name: str, tasks: Collection[str]) -> str:
    """Returns the task of that name, ignoring case if only one task matches."""
    if name in tasks:
        return name
    alike = [task for task in tasks if task.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else name


def _without_number(name: str) -> str:
    task, _, number = name.rpartition("_")
    return task if number.isdecimal() else ""


def _require_one_width(
    prompts: Mapping[tuple[str, int], Matrix], paths: Mapping[tuple[str, int], Path]
) -> None:
    widths: dict[int, Path] = {}
    for place, prompt in prompts.items():
        widths.setdefault(prompt.shape[1], paths[place])
    if len(widths) > 1:
        (width, path), (other, odd) = list(widths.items())[:2]
        raise DataError(
            f"{path} has rows of width {width} and {odd} of width {other}, so they are of different "
            "models and cannot be "
            "compared. Give prompts of one model."
        )
