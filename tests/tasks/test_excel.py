"""The sheet of a workbook that is read, and the note on those that are not."""

import datetime
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


def test_a_sheet_of_one_line_is_not_the_table(tmp_path: Path) -> None:
    heard: list[str] = []
    path = book(tmp_path / "a.xlsx", About=[["Exported in May"]], May=rows("tea"))
    assert len(read_rows(path, on_note=heard.append)) == 20
    assert "only the sheet 'May' is read; 'About' is not" in heard[0]


def test_the_sheets_that_are_not_read_are_named_before_an_error(tmp_path: Path) -> None:
    heard: list[str] = []
    path = book(tmp_path / "a.xlsx", About=[["Exported"], ["in May"]], May=rows("tea"))
    with pytest.raises(DataError, match="Columns there: 'Exported'"):
        load_task_file(path, on_message=heard.append)
    assert "'May' is not" in heard[0]


def test_formulas_without_a_saved_value_are_counted(tmp_path: Path) -> None:
    heard: list[str] = []
    cells = [[text, f'=IF(A{i}="", "no", "{label}")'] for i, (text, label) in enumerate(rows("tea"))]
    cells[1:3] = [["tea", "yes"], [None, "no"]]
    path = book(tmp_path / "a.xlsx", May=[["text", "label"], *cells[1:]])
    assert read_rows(path, on_note=heard.append)[2] == {"text": "tea 2", "label": None}
    assert len(heard) == 1
    assert heard[0].startswith("18 formulas of a.xlsx without a saved value count as empty. Open it")


def test_a_date_has_no_time_of_day(tmp_path: Path) -> None:
    days = [datetime.datetime(2024, 5, 30 + i) for i in range(2)]
    path = book(tmp_path / "a.xlsx", May=[["text", "label"], *([f"tea {i}", days[i % 2]] for i in range(20))])
    assert load_task_file(path).labels == ("2024-05-30", "2024-05-31")
    noon = book(tmp_path / "b.xlsx", May=[["day"], [datetime.datetime(2024, 5, 30, 12)]])
    assert read_rows(noon) == [{"day": datetime.datetime(2024, 5, 30, 12)}]
