"""Loads tasks from a user's own files: one to three files, or a folder with one file per split.

Finds the files; `files` reads their rows, and `tabular` makes a task of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spoton.errors import DataError
from spoton.files import sha256_of_file, sha256_of_text
from spoton.tasks.data_spec import DataSpec
from spoton.tasks.files import read_rows, require_file
from spoton.tasks.parts import parts_of_split
from spoton.tasks.stored.load import load_stored
from spoton.tasks.tabular import task_from_rows
from spoton.tasks.task import Task

LARGE = 64 * 2**20
"""Size in bytes from which a task's rows are kept on disk and read on demand."""
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
# File names that do not name the task; the folder's name does.
_NAMELESS = frozenset(name for names in _SPLITS.values() for name in names) | {"data", "dataset"}


def load_task_file(
    path: Path | str,
    spec: DataSpec | None = None,
    *,
    on_message: Callable[[str], None] | None = None,
    **options: Any,
) -> Task:
    """Loads a task from one to three files of examples.

    Args:
        path: CSV, TSV, JSON, JSON Lines, Parquet or Excel, also gzipped.
        spec: How to read its rows.
        on_message: Called when large files must be read, which takes minutes.
        **options: Fields of `DataSpec`; they override `spec`.

    Raises:
        DataError: A file cannot be used; the message says where.

    Examples:
        >>> task = load_task_file("reviews.csv", input="text", target="label")  # doctest: +SKIP
    """
    chosen = DataSpec.of(spec, options)
    given = {"train": Path(path), "validation": chosen.validation, "test": chosen.test}
    files = {split: [file] for split, file in given.items() if file is not None}
    for [file] in files.values():
        require_file(file)
    return _load(Path(path), files, chosen, on_message)


def load_task_folder(
    path: Path | str,
    spec: DataSpec | None = None,
    *,
    on_message: Callable[[str], None] | None = None,
    **options: Any,
) -> Task:
    """Loads a task from a folder with `train.csv` and, optionally, `validation.csv` and `test.csv`.

    The files may be of any kind that `load_task_file` reads. `valid`, `val` and `dev` also name the validation split,
    and `train-00000-of-00002.parquet` is a part of the training split, of which all parts have to be there.

    Args:
        path: The folder.
        spec: How to read the rows.
        on_message: As in `load_task_file`.
        **options: Fields of `DataSpec`; they override `spec`.

    Raises:
        DataError: There is no training file, a part is missing, it is not clear which files are a split, or as in
            `load_task_file`.
    """
    folder = Path(path)
    files = {split: parts_of_split(folder, names) for split, names in _SPLITS.items()}
    if not files["train"]:
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise DataError(
            f"{folder} is a folder without a training file; it holds {there}. Name its files train, validation and "
            f"test, such as train.csv, or give the path of one file."
        )
    return _load(
        folder,
        {split: parts for split, parts in files.items() if parts},
        DataSpec.of(spec, options),
        on_message,
    )


def _load(
    path: Path,
    files: Mapping[str, Sequence[Path]],
    spec: DataSpec,
    on_message: Callable[[str], None] | None = None,
) -> Task:
    name, source = spec.name or _name(path), f"file:{path.resolve().name}"
    if sum(part.stat().st_size for parts in files.values() for part in parts if part.is_file()) > LARGE:
        task = load_stored(files, spec, name=name, source=source, on_message=on_message)
        if task is not None:
            return task
    notes: list[str] = []
    splits = {
        split: [
            row
            for part in parts
            for row in read_rows(part, spec.encoding, spec.delimiter, on_note=notes.append)
        ]
        for split, parts in files.items()
    }
    # Equal rows are the same task whatever the names of their files; different rows are another task.
    content = sha256_of_text(sha256_of_file(part) for part in files["train"])[:12]
    try:
        task = task_from_rows(splits, name=name, source=f"{source}@{content}", spec=spec)
    except DataError:  # what was noted about the files, such as a sheet that was not read, may be why
        if on_message:
            for note in notes:
                on_message(note)
        raise
    return replace(task, notes=(*notes, *task.notes))


def _name(path: Path) -> str:
    """Returns the file's name without suffixes, or its folder's name where that says more."""
    resolved = path.resolve()
    if resolved.is_dir():
        return resolved.name if resolved.name not in _NAMELESS else resolved.parent.name or resolved.name
    stem = Path(resolved.name.removesuffix(".gz")).stem
    nameless = stem.lower() in _NAMELESS and resolved.parent.name
    return resolved.parent.name if nameless else stem
