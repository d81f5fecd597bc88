"""The sheet of a workbook that is read, and the note on those that are not."""

from pathlib import Path

import openpyxl
import pytest

from spoton.errors import DataError
from spoton.tasks.files import read_rows
from spoton.tasks.load_files import load_task_file


def book(path: Path, **sheets: list[list[object]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def rows(word: str) -> list[list[object]]:
    return [["text", "label"], *([f"{word} {i}", ("no", "yes")[i % 2]] for i in range(20))]


def test_a_note_names_the_sheets_that_are_not_read(tmp_path: Path) -> None:
    path = book(
        tmp_path / "a.xlsx", Cover=[[None], [" "]], May=rows("tea"), June=rows("jam"), July=rows("pie")
    )
    task = load_task_file(path)
    assert all(example.input.startswith("tea") for example in task.train)
    assert task.notes[0].startswith("Of a.xlsx, only the sheet 'May' is read; 'June', 'July' are not.")


def test_one_sheet_needs_no_note(tmp_path: Path) -> None:
    heard: list[str] = []
    path = book(tmp_path / "a.xlsx", May=rows("tea"), Empty=[], Blank=[[" ", None]])
    assert len(read_rows(path, on_note=heard.append)) == 20 and heard == []


def test_a_row_of_spaces_is_not_a_header(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", Sheet=[[" ", "  "], *rows("tea")])
    assert read_rows(path)[0] == {"text": "tea 0", "label": "no"}


def test_a_workbook_of_spaces_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty: it has no rows"):
        read_rows(book(tmp_path / "a.xlsx", Sheet=[[" "], ["  "]]))
