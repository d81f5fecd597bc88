"""Tasks from a user's own files: CSV, TSV, JSONL and Parquet.

Reads rows; what the columns mean is settled in `tabular`.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spoton.errors import DataError
from spoton.parsing import MalformedError, parse_json
from spoton.reading import read_bytes, reason
from spoton.tasks.tabular import task_from_rows
from spoton.tasks.task import Task

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_LONGEST_CELL = 2**31 - 1  # csv refuses cells above 128 KB unless told otherwise; a C long may have 32 bits


def load_task_file(
    path: Path | str,
    *,
    input: str | None = None,
    target: str | None = None,
    template: str | None = None,
    name: str | None = None,
    family: str = "",
    labels: Sequence[str] | None = None,
    validation: Path | str | None = None,
    test: Path | str | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    encoding: str = "utf-8",
) -> Task:
    """Load a task from a file of examples, or from up to three.

    Args:
        path: `.csv`, `.tsv`, `.jsonl` (or `.ndjson`) or `.parquet`.
        input: Column of the input. Default: a column named text, input, sentence or question.
        target: Column of the target. Default: label, target, answer or class.
        template: Jinja template of the input over all columns, in place of `input`.
        name: Name of the task. Default: the file's name.
        family: What kind of task it is, such as sentiment.
        labels: The closed set of targets in its order. Default: from the data; see `task_from_rows`.
        validation: File of the validation split. Default: taken out of `path`.
        test: File of the test split. Default: taken out of `path`.
        metrics: Names in `METRICS`, the main one first.
        seed: Decides the splits.
        encoding: Of the text files; a byte order mark is skipped.

    Raises:
        DataError: Whatever is wrong with the files, with the place where it is.

    Example:
        >>> task = load_task_file("reviews.csv", input="text", target="label")  # doctest: +SKIP
    """
    given = {"train": path, "validation": validation, "test": test}
    splits = {split: read_rows(Path(file), encoding) for split, file in given.items() if file is not None}
    return task_from_rows(
        splits,
        name=name or Path(path).stem,
        family=family,
        source=f"file:{Path(path).name}",
        input=input,
        target=target,
        template=template,
        labels=labels,
        metrics=metrics,
        seed=seed,
    )


def read_rows(path: Path, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """All rows of a file as dictionaries; the cells of CSV and TSV files are strings.

    Raises:
        DataError: The file is missing, empty, of another kind, or cannot be decoded or parsed.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}. Give the path of a data file."
        )
    if suffix not in _SUFFIXES:
        raise DataError(
            f"{path} ends in {suffix or 'nothing'}; expected one of {', '.join(_SUFFIXES)}. Convert it."
        )
    if suffix == ".parquet":
        rows = _read_parquet(path)
    else:
        text = _read_text(path, encoding)
        rows = _parse_json_lines(text, path) if suffix in (".jsonl", ".ndjson") else _parse_csv(text, path)
    if not rows:
        raise DataError(f"{path} is empty: it has no rows. Give a file with examples.")
    return rows


def _read_text(path: Path, encoding: str) -> str:
    try:
        data = read_bytes(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {reason(error)}.") from error
    try:
        text = data.decode(encoding)
    except LookupError:
        raise DataError(
            f"There is no encoding {encoding!r}. Try --encoding latin-1, cp1252 or utf-16."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {encoding}: line {data[: error.start].count(10) + 1} has byte "
            f"0x{data[error.start]:02x} at position {error.start} of the file. "
            "Name its encoding, for example --encoding cp1252 or latin-1, or save it as UTF-8."
        ) from error
    return text.removeprefix("\ufeff")


def _parse_csv(text: str, path: Path) -> list[dict[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(reader, None)
        if header is None:
            return []
        _check_header(header, path)
        rows: list[dict[str, Any]] = []
        for cells in reader:
            if len(cells) > len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells under {len(header)} columns. "
                    "Put cells that hold the delimiter into double quotes."
                )
            if cells:  # a blank line is no row
                rows.append(dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True)))
        return rows
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}. Check the quotation marks there."
        ) from error
    finally:
        csv.field_size_limit(before)


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise DataError(f"{path} names the column {twice[0]!r} twice. Rename one in the first line.")


def _parse_json_lines(text: str, path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = parse_json(content)
        except MalformedError as error:
            raise DataError(
                f"{path}, line {line} is not JSON: {error}. Expected one object a line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {line} is a JSON {type(row).__name__}; expected an object with columns."
            )
        rows.append(row)
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Write it anew.") from error
    return rows
