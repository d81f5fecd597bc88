"""Sheets of Excel workbooks."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spoton.errors import DataError

OnNote = Callable[[str], None]
"""Called with what a user should know about a file."""


def unheard(note: str) -> None:
    """Does nothing with a note."""


def first_sheet(data: bytes, path: Path, on_note: OnNote) -> list[list[Any]]:
    """Returns the cells of the first sheet that has any, from its first row that has any.

    Formulas count as the values saved with them.

    Args:
        data: The workbook.
        path: Its file, for messages.
        on_note: Called if other sheets have cells too.

    Raises:
        DataError: The workbook cannot be read.
    """
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns about workbook features that it drops
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = {
                sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)]
                for sheet in book.worksheets
            }
    except Exception as error:  # a damaged workbook raises any error of zipfile, XML or openpyxl
        raise DataError(f"{path} cannot be read as an Excel workbook: {error}. Save it anew.") from error
    first, *others = [title for title, rows in sheets.items() if not all(map(_is_blank, rows))] or [""]
    if others:
        left = ", ".join(map(repr, others[:5])) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        on_note(
            f"Of {path.name}, only the sheet {first!r} is read; {left} {'is' if len(others) == 1 else 'are'} not. "
            "To use another sheet, save it as a file of its own."
        )
    rows = sheets.get(first, [])
    while rows and _is_blank(rows[0]):
        rows.pop(0)
    return rows


def _is_blank(row: Sequence[Any]) -> bool:
    return all(cell is None or not str(cell).strip() for cell in row)
