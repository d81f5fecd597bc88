"""Writes answers to a table next to the columns of their rows: CSV, TSV or JSON Lines by the file's suffix."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spoton.errors import SpotonError
from spoton.files import atomic_write, require_writable

_SUFFIXES = (".csv", ".tsv", ".jsonl")


def require_table(
    path: Path,
    *,
    overwrite: bool,
    inputs: Iterable[str | Path | None] = (),
    folders: Iterable[Path] = (),
) -> None:
    """Checks the path of a table before anything is computed.

    Args:
        path: The place.
        overwrite: Whether a file there may be replaced.
        inputs: What the command reads, and the table would destroy; names that are no files are left out.
        folders: Folders whose files the command reads as data, as it would read the table the next time.

    Raises:
        SpotonError: The suffix is not one of a table, the file already exists or cannot be written, or it would be in a
            folder of data.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise SpotonError(
            f"{path} ends in {path.suffix or 'nothing'}; expected one of {', '.join(_SUFFIXES)} to write answers to."
        )
    for data in inputs:
        if data is not None and path.exists() and Path(data).is_file() and path.samefile(data):
            raise SpotonError(
                f"{path} is the data itself, which the answers would replace. Choose another name."
            )
    for folder in folders:
        if path.parent.resolve() == folder.resolve():
            raise SpotonError(
                f"{path} is in {folder}, the folder of the data, where the answers would be read as data the next "
                "time. Choose a place outside it."
            )
    if path.exists() and not overwrite:
        raise SpotonError(f"{path} already exists. Choose another name, or give --overwrite.")
    require_writable(path)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the union of their columns, in the order of their first appearance.

    Raises:
        SpotonError: The file cannot be written.
    """
    if path.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(_strict(row), ensure_ascii=False, default=str) + "\n" for row in rows)
    else:
        out = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(
            out, names, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    atomic_write(path, text.encode("utf-8", "surrogatepass"))


def _strict(value: Any) -> Any:
    """Returns a cell with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    return [_strict(inner) for inner in value] if isinstance(value, list | tuple) else value


def joined(
    original: Mapping[str, Any], answers: Mapping[str, Any], taken: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the columns of a row and of its answer; a column of the answer gets an underscore if its name is taken.

    Args:
        original: The row as it was read.
        answers: The columns to add.
        taken: Names of the columns of all rows.
    """
    there = {*original, *taken}
    return {**original, **{_free(name, there): value for name, value in answers.items()}}


def _free(name: str, there: set[str]) -> str:
    while name in there:
        name += "_"
    return name
