"""Rows of CSV and TSV text, also below what spreadsheets write: blank lines, and a line that names the delimiter."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from spoton.errors import DataError

_LONGEST_CELL = 2**31 - 1  # csv refuses cells above 128 KB unless told otherwise; a C long may have 32 bits
_DELIMITERS = ",;\t|"
_BLANK = re.compile(rf"[\s{_DELIMITERS}]*")
# A spreadsheet that saves the line again fills its row up with empty cells.
_NAMED = re.compile(rf'"?sep=(?P<delimiter>\\t|[^\w"\r\n])"?[\s{_DELIMITERS}]*', re.IGNORECASE)
_NAMED_WRONGLY = re.compile(r'"?sep=.?.?"?\s*', re.IGNORECASE)


def csv_table(lines: TextIO, path: Path, delimiter: str | None) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Returns the columns of a CSV file, and a lazy iterator over its rows.

    Args:
        lines: The whole file, with its original line ends.
        path: Path of the file, for messages; the delimiter of `.tsv` is the tab.
        delimiter: The delimiter. None: the one that a first line such as `sep=;` names, else by the first line.

    Raises:
        DataError: A column occurs twice, or a first line `sep=` does not name a delimiter; during iteration, a row
            cannot be parsed.
    """
    begin = _begin(lines, path, delimiter)
    reader = csv.reader(
        chain(filter(None, [begin.line]), lines),
        delimiter=begin.delimiter,
        skipinitialspace=begin.is_spaced,
        strict=True,
    )
    with _long_cells(path, reader, begin.skipped):
        header = column_names(next(reader, []))
        require_header(header, path)
    return header, aligned_rows(header, _cells(reader, len(header), path, begin.skipped), "")


@dataclass(frozen=True)
class _Begin:
    """Where the table of a CSV file begins: its first line, the number of lines above it, and its delimiter."""

    line: str
    skipped: int
    delimiter: str

    @property
    def is_spaced(self) -> bool:
        """Whether a space follows each delimiter, as people write by hand; it is then no part of the cells."""
        return self.line.count(self.delimiter) == self.line.count(f"{self.delimiter} ") > 0


def _begin(lines: TextIO, path: Path, delimiter: str | None) -> _Begin:
    line, skipped = _next_line(lines, 0)
    named = _NAMED.fullmatch(line)
    if named:
        delimiter = delimiter or named["delimiter"].replace("\\t", "\t")
        line, skipped = _next_line(lines, skipped + 1)
    elif _NAMED_WRONGLY.fullmatch(line):
        if delimiter is None:
            raise DataError(
                f"{path}, line {skipped + 1} is {line.strip()!r}, which does not name the delimiter as 'sep=;' does. "
                "Correct or delete that line, or name the delimiter with --delimiter."
            )
        line, skipped = _next_line(lines, skipped + 1)
    if delimiter is None:
        delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else _sniffed(line)
    return _Begin(line, skipped, delimiter)


def _next_line(lines: TextIO, skipped: int) -> tuple[str, int]:
    """Returns the next line that is not blank, empty at the end, and the number of lines above it."""
    line = lines.readline()
    while line and _BLANK.fullmatch(line):
        line, skipped = lines.readline(), skipped + 1
    return line, skipped


def _cells(reader: Any, columns: int, path: Path, skipped: int) -> Iterator[list[str]]:
    with _long_cells(path, reader, skipped):
        for cells in reader:
            if len(cells) > columns:
                raise DataError(
                    f"{path}, line {reader.line_num + skipped}: {len(cells)} cells under {columns} columns. "
                    "Put cells that hold the delimiter into double quotes, or name it with --delimiter."
                )
            yield cells


@contextmanager
def _long_cells(path: Path, reader: Any, skipped: int) -> Iterator[None]:
    """Allows cells of any length inside the block, and reports a reader's error with its line."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num + skipped}: {error}. Check the quotation marks there."
        ) from error
    finally:
        csv.field_size_limit(before)


def _sniffed(text: str) -> str:
    """Returns the delimiter that divides the first line into the most cells; the comma if none does."""
    line = text.partition("\n")[0]

    def cells(delimiter: str) -> int:
        try:
            return len(next(csv.reader([line], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=cells)


def aligned_rows(
    header: Sequence[str], rows: Iterable[Sequence[Any]], empty: Any
) -> Iterator[dict[str, Any]]:
    """Yields rows by column. Blank lines are skipped; with a single column, those before the end are empty cells."""
    blank = 0
    for cells in rows:
        if _is_blank(cells):
            blank += 1
            continue
        if len(header) == 1:
            yield from ({header[0]: empty} for _ in range(blank))
        blank = 0
        yield dict(zip(header, [*cells, *[empty] * (len(header) - len(cells))], strict=True))


def _is_blank(cells: Sequence[Any]) -> bool:
    return all(cell is None for cell in cells)


def column_names(header: Sequence[str]) -> list[str]:
    """Returns the names of columns; `column 3` is the third if it has none."""
    return [name if name.strip() else f"column {place}" for place, name in enumerate(header, start=1)]


def require_header(header: Sequence[str], path: Path) -> None:
    """Checks the names of columns.

    Raises:
        DataError: A name occurs twice.
    """
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise DataError(f"{path} names the column {twice[0]!r} twice. Rename one.")
