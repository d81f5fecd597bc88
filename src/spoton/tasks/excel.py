"""Sheets of Excel workbooks."""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spoton.errors import DataError

OnNote = Callable[[str], None]
"""Called with what a user should know about a file."""
_Sheets = dict[str, list[list[Any]]]


def unheard(note: str) -> None:
    """Does nothing with a note."""


def first_sheet(data: bytes, path: Path, on_note: OnNote) -> list[list[Any]]:
    """Returns the cells of the first sheet with a row below its header, from its first row that has cells.

    Formulas count as the values saved with them. A date without a time of day is a date.

    Args:
        data: The workbook.
        path: Its file, for messages.
        on_note: Called if other sheets have cells too, or formulas have no saved value.

    Raises:
        DataError: The workbook cannot be read.
    """
    sheets = _sheets(data, path, saved=True)
    filled = {title: sum(not _is_blank(row) for row in rows) for title, rows in sheets.items()}
    titles = [title for title, rows in filled.items() if rows]
    first = next((title for title in titles if filled[title] > 1), titles[0] if titles else "")
    others = [title for title in titles if title != first]
    if others:
        left = ", ".join(map(repr, others[:5])) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        on_note(
            f"Of {path.name}, only the sheet {first!r} is read; {left} {'is' if len(others) == 1 else 'are'} not. "
            "To use another sheet, save it as a file of its own."
        )
    rows = sheets.get(first, [])
    if any(cell is None for row in rows for cell in row):
        unsaved = _formulas_without_value(rows, _sheets(data, path, saved=False)[first])
        if unsaved:
            on_note(
                f"{unsaved} {'formula' if unsaved == 1 else 'formulas'} of {path.name} without a saved value "
                f"{'counts' if unsaved == 1 else 'count'} as empty. Open it in a spreadsheet program and save it there."
            )
    while rows and _is_blank(rows[0]):
        rows.pop(0)
    return [[_dated(cell) for cell in row] for row in rows]


def _sheets(data: bytes, path: Path, *, saved: bool) -> _Sheets:
    """Returns the cells of each sheet; formulas as the values saved with them, or as formulas."""
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns about workbook features that it drops
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=saved)
            return {
                sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)]
                for sheet in book.worksheets
            }
    except Exception as error:  # a damaged workbook raises any error of zipfile, XML or openpyxl
        raise DataError(f"{path} cannot be read as an Excel workbook: {error}. Save it anew.") from error


def _formulas_without_value(values: Sequence[Sequence[Any]], formulas: Sequence[Sequence[Any]]) -> int:
    return sum(
        value is None and formula is not None
        for row, written in zip(values, formulas, strict=True)
        for value, formula in zip(row, written, strict=True)
    )


def _dated(cell: Any) -> Any:
    """Returns a cell; Excel's dates come with a time of day, midnight."""
    is_date = isinstance(cell, datetime.datetime) and cell.time() == datetime.time()
    return cell.date() if is_date else cell


def _is_blank(row: Sequence[Any]) -> bool:
    return all(cell is None or not str(cell).strip() for cell in row)
