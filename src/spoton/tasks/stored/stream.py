"""Streams the rows of large files, as often as needed, without keeping them.

Reads CSV, TSV, JSON Lines and Parquet, also gzipped; `row_stream` says where that is not possible.
"""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO, cast

from spoton.errors import DataError
from spoton.reading import reason
from spoton.tasks.cells import CONVERSATIONAL, plain_row
from spoton.tasks.csv_rows import csv_table
from spoton.tasks.files import (
    BYTE_ORDER_MARKS,
    REFUSED,
    SUFFIXES,
    holds_zeros,
    not_encoded,
    parquet_table,
)
from spoton.tasks.json_rows import enclosed_rows, json_document, json_lines

StreamedTable = tuple[list[str] | None, Iterator[dict[str, Any]]]
"""Columns, where a file names them before its rows, and rows."""
_UTF8 = ("utf-8", "utf_8", "utf8", "utf-8-sig")


@dataclass(frozen=True)
class RowStream:
    """Rows of one or more files with plain cells; see `spoton.tasks.cells`.

    Args:
        tables: Functions that each open a file anew.
    """

    tables: Sequence[Callable[[], StreamedTable]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for table in self.tables:
            yield from map(plain_row, table()[1])

    @cached_property
    def names(self) -> list[str]:
        """All columns in the order of their first appearance; reads all rows where only those name the columns."""
        names: dict[str, None] = {}
        for table in self.tables:
            columns, rows = table()
            if columns is None or CONVERSATIONAL & set(columns):
                names |= dict.fromkeys(name for row in rows for name in plain_row(row))
            else:
                names |= dict.fromkeys(columns)
        return list(names)


def row_stream(
    files: Sequence[Path], encoding: str | None = None, delimiter: str | None = None
) -> RowStream | None:
    """Returns the rows of files as a stream; None where a file can only be read as a whole, or not at all.

    Args:
        files: The files, in order.
        encoding: Encoding of text files. None: UTF-8.
        delimiter: Delimiter of CSV files. None: by the first line.
    """
    tables = [_table(path, encoding, delimiter) for path in files]
    return RowStream([table for table in tables if table is not None]) if None not in tables else None


def _table(path: Path, encoding: str | None, delimiter: str | None) -> Callable[[], StreamedTable] | None:
    suffix = PurePath(path.name.lower().removesuffix(".gz")).suffix
    if not path.is_file() or suffix not in SUFFIXES or suffix in (".xlsx", ".xlsm"):
        return None
    try:
        with _opened(path) as file:
            start = file.read(64)
            line = start.lstrip().lower()
    except DataError:
        return None
    if start.startswith(b"PAR1"):
        return None if _is_gzipped(path) else lambda: parquet_table(path, path)
    marked = [name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark) and name != "utf-8-sig"]
    refused = any(line.startswith(mark.lower()) for mark, _ in (*REFUSED, (b"\x1f\x8b", "")))
    if marked or refused or suffix == ".parquet" or not _has_lines(encoding):
        return None
    if suffix in (".json", ".jsonl", ".ndjson") and delimiter is None:
        with _lines(path, encoding, "\n") as lines:
            first, second = [*islice((text for text in lines if text.strip()), 2), "", ""][:2]
        row = json_document(first) if first.lstrip().startswith("{") else None
        if row is None or (not second and enclosed_rows(row) is not None):
            return None
        return lambda: (None, _rows(path, encoding, "\n", lambda lines: (None, json_lines(lines, path))))
    return lambda: _csv(path, encoding, delimiter)


def _csv(path: Path, encoding: str | None, delimiter: str | None) -> StreamedTable:
    with _lines(path, encoding, "") as lines:
        header, _ = csv_table(cast(TextIO, lines), path, delimiter)
    return header, _rows(path, encoding, "", lambda lines: csv_table(cast(TextIO, lines), path, delimiter))


def _rows(
    path: Path, encoding: str | None, ends: str, parse: Callable[[_Lines], StreamedTable]
) -> Iterator[dict[str, Any]]:
    with _lines(path, encoding, ends) as lines:
        yield from parse(lines)[1]


class _Lines:
    """Lines of a text file, checked as they pass; implements as much of a file as the parsers of `files` need."""

    def __init__(self, text: TextIO, path: Path, encoding: str) -> None:
        self._text, self._path, self._encoding = text, path, encoding

    def readline(self) -> str:
        """Returns the next line; empty at the end."""
        return next(self, "")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline()
        if not line:
            raise StopIteration
        if "\0" in line:
            raise holds_zeros(self._path, self._encoding)
        return line


@contextmanager
def _lines(path: Path, encoding: str | None, ends: str) -> Iterator[_Lines]:
    chosen = encoding or "utf-8"
    marked = "utf-8-sig" if chosen.lower() in _UTF8 else chosen
    with _opened(path) as file, closing(io.TextIOWrapper(file, marked, newline=ends)) as text:
        try:
            yield _Lines(text, path, chosen)
        except UnicodeDecodeError as error:
            raise _undecodable(path, chosen) from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path} cannot be unpacked by gzip: {error}. Fetch or compress it anew."
            ) from error
        except OSError as error:
            raise DataError(f"Cannot read {path}: {reason(error)}.") from error


def _undecodable(path: Path, encoding: str) -> DataError:
    """Returns the error for the first byte that is invalid in an encoding."""
    position = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                return not_encoded(path, encoding, number, line[error.start], position + error.start)
            position += len(line)
    return DataError(f"{path} is not {encoding}. Name its encoding with --encoding, or save it as UTF-8.")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as plain:
            if plain.peek(2)[:2] != b"\x1f\x8b":
                yield plain
            else:
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    yield cast(BinaryIO, unpacked)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {reason(error)}.") from error


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _has_lines(encoding: str | None) -> bool:
    """Returns whether lines of an encoding end in the same byte as in ASCII."""
    try:
        return "\n".encode(codecs.lookup(encoding or "utf-8").name) == b"\n"
    except (LookupError, UnicodeError):
        return False
