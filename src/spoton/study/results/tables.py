"""Reads other people's tables as rows of text: CSV with any usual delimiter, TSV, JSON Lines, JSON, Parquet.

Tables are long or wide. Knows files and cells, not the meaning of scores. Nothing in a file is executed.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoton.errors import DataError
from spoton.parsing import parse_json
from spoton.reading import read_bytes, read_text, reason

_DELIMITERS = ",;\t|"
_MISSING = frozenset({"", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a", "na", "nan", "none", "null"})
"""Texts that mark an empty cell of a matrix."""


@dataclass(frozen=True)
class TableRow:
    """A row.

    Attributes:
        where: Its file and line, for errors.
        cells: Stripped text by column; column names are lower case.
    """

    where: str
    cells: dict[str, str]


@dataclass(frozen=True)
class TableFile:
    """A file of rows.

    Attributes:
        path: The file.
        columns: Its headings as written, stripped.
        rows: Its rows, without blank lines.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The headings in lower case, as the keys of a row's cells."""
        return tuple(column.lower() for column in self.columns)


def read_table(path: Path) -> TableFile:
    """Reads a table; its suffix gives the format, and a CSV's first line the delimiter.

    Raises:
        DataError: The file is missing or damaged, or a row does not fit the first line; the message says which.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _parquet(path)
        text = read_text(path, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}. Check the path.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {reason(error)}. Give the path of a table.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as a table: {error}. Save it as UTF-8 CSV.") from error
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return _json(path, text)
    return _csv(path, text)


def delimiter_of(path: Path, text: str) -> str:
    """Returns the delimiter of a CSV: a tab for `.tsv`, else the most frequent one in its first line."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(_DELIMITERS, key=first.count)  # on a tie, the first: a comma


def _csv(path: Path, text: str) -> TableFile:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(path, text))
    try:
        header = tuple(column.strip() for column in next(reader, ()))
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV: {error}. Save it as UTF-8 CSV.") from error
    for line, row in lines:
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: found {len(row)} cells, expected {len(header)}. Quote cells that hold the "
                "delimiter."
            )
    return _table(path, header, [(f"line {line}", row) for line, row in lines])


def _json(path: Path, text: str) -> TableFile:
    """Reads one object per line, or one array of objects."""
    try:
        if text.lstrip().startswith("["):
            objects = list(enumerate(parse_json(text), start=1))
            word = "entry"
        else:
            objects = [
                (line, parse_json(one)) for line, one in enumerate(text.split("\n"), start=1) if one.strip()
            ]
            word = "line"
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}. Expected one object a line.") from error
    for line, one in objects:
        if not isinstance(one, dict) or any(isinstance(cell, list | dict) for cell in one.values()):
            raise DataError(
                f"{path}, {word} {line}: expected an object of plain values such as "
                '{"source": "mnli", "target": "rte", "score": 74.7}.'
            )
    header = tuple(dict.fromkeys(str(name).strip() for _, one in objects for name in one))
    return _table(
        path, header, [(f"{word} {line}", [_text(one.get(name)) for name in header]) for line, one in objects]
    )


def _parquet(path: Path) -> TableFile:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(read_bytes(path)))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}. Save it again, or as CSV.") from error
    index = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    named = [
        name for name in index if name in table.column_names
    ]  # pandas writes its index after the other columns
    table = table.select([*named, *(name for name in table.column_names if name not in named)])
    columns = [column.to_pylist() for column in table.columns]
    rows = [
        (f"row {i}", [_text(cell) for cell in row]) for i, row in enumerate(zip(*columns, strict=True), 1)
    ]
    return _table(path, tuple(name.strip() for name in table.column_names), rows)


def _table(path: Path, header: tuple[str, ...], rows: Sequence[tuple[str, Sequence[str]]]) -> TableFile:
    names = [column.lower() for column in header]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} more than once. Keep one.")
    return TableFile(
        path, header,
        tuple(
            TableRow(f"{path}, {where}", dict(zip(names, (cell.strip() for cell in row), strict=True)))
            for where, row in rows
        ),
    )  # fmt: skip


def _text(cell: object) -> str:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else str(cell)


def is_matrix(table: TableFile) -> bool:
    """Returns whether a table looks like one row per source and one column per target: only numbers after the first
    cell."""
    first, *others = table.names or ("",)
    return len(others) > 0 and all(
        _is_cell_of_matrix(row.cells[name]) for row in table.rows for name in others if name != first
    )


def unfold(table: TableFile) -> Iterator[TableRow]:
    """Yields the cells of a matrix as long rows `source,target,score,std`, without empty ones.

    A cell is a number, or a mean with its deviation: `97.0 ± 1.1`, `97.0 +- 1.1`, `97.0 (1.1)`.

    Raises:
        DataError: A column has no heading, or a cell is something else.
    """
    first, *targets = zip(table.names, table.columns, strict=True)
    if any(not heading for _, heading in targets):
        raise DataError(f"{table.path}: a column has no heading. Name each column after its target.")
    for row in table.rows:
        for name, target in targets:
            cell = row.cells[name]
            if cell.lower() in _MISSING:
                continue
            if not _is_cell_of_matrix(cell):
                raise DataError(
                    f"{row.where}, column {target}: found {cell!r}; expected a number, or mean ± deviation."
                )
            mean, _, std = _split(cell)
            where = f"{row.where}, column {target}"
            yield TableRow(
                where, {"source": row.cells[first[0]], "target": target, "score": mean, "std": std}
            )


def _is_cell_of_matrix(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return True
    mean, mark, std = _split(cell)
    return _is_number(mean) and (_is_number(std) or not mark)


def _split(cell: str) -> tuple[str, str, str]:
    for mark in ("\N{PLUS-MINUS SIGN}", "+-", "+/-", "("):
        if mark in cell:
            mean, _, std = cell.partition(mark)
            return mean.strip(), mark, std.strip().removesuffix(")").strip()
    return cell, "", ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
