"""JSON text: a list, an object around a list, or one object a line; one object alone may be any of the last two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spoton.errors import DataError
from spoton.tasks.files import read_rows
from spoton.tasks.json_rows import enclosed_rows, json_rows
from spoton.tasks.stored.stream import row_stream

ROWS = [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}]
PATH = Path("a.json")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("whole", [ROWS, {"data": ROWS}, {"mine": ROWS}, {"version": 1, "Rows": ROWS}])
def test_a_document_holds_the_rows(whole: Any, end: str, indent: int | None) -> None:
    assert json_rows(json.dumps(whole, indent=indent) + end, PATH) == ROWS


@pytest.mark.parametrize(
    "row",
    [
        ROWS[0],
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]},
        {"text": "a", "label": "b", "spans": [{"from": 1}]},
        {"text": ["a", "b"]},
    ],
)
def test_one_object_on_a_line_is_a_row(row: Any) -> None:
    assert json_rows(json.dumps(row), PATH) == [row]
    assert enclosed_rows(row) is None


def test_several_lines_are_rows_whatever_they_hold() -> None:
    lines = [{"data": ROWS}, {"data": ROWS}]
    assert json_rows("".join(json.dumps(line) + "\n" for line in lines), PATH) == lines


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_with_two_lists_is_refused(indent: int | None) -> None:
    with pytest.raises(DataError, match="one JSON object with 'train', 'test'; expected a list of objects"):
        json_rows(json.dumps({"train": ROWS, "test": ROWS}, indent=indent), PATH)


@pytest.mark.parametrize(
    "whole",
    [
        {"text": {"0": "a", "1": "c"}, "label": {"0": "b", "1": "d"}},
        {"0": ROWS[0], "1": ROWS[1]},
        {"text": ["a", "c"], "label": ["b", "d"]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_table_by_column_or_index_is_refused(whole: Any, indent: int | None) -> None:
    with pytest.raises(DataError, match=r"one JSON object with .*one object a line.*orient='records'"):
        json_rows(json.dumps(whole, indent=indent), PATH)


@pytest.mark.parametrize("row", [{"a": {"text": "x"}, "b": {"text": "y"}}, {"a": ["x"], "b": ["y"]}, {}])
def test_one_row_of_objects_or_short_lists_is_a_row(row: Any) -> None:
    assert json_rows(json.dumps(row), PATH) == [row]


def test_json_under_another_name_is_read(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    for text in (lines, json.dumps(ROWS), json.dumps(ROWS, indent=1)):
        (tmp_path / "a.csv").write_text(text)
        assert read_rows(tmp_path / "a.csv") == ROWS
    (tmp_path / "a.csv").write_text('[note],"{x}"\na,b\n')
    assert read_rows(tmp_path / "a.csv") == [{"[note]": "a", "{x}": "b"}]


def test_a_large_document_is_read_as_a_whole(tmp_path: Path) -> None:
    for name, text, is_streamed in (
        ("a.json", json.dumps({"data": ROWS}), False),
        ("b.json", "\n" + json.dumps({"data": ROWS}) + "\n\n", False),
        ("c.json", json.dumps(ROWS[0]), True),
        ("d.json", json.dumps({"data": ROWS}) + "\n" + json.dumps({"data": ROWS}), True),
    ):
        (tmp_path / name).write_text(text)
        assert (row_stream([tmp_path / name]) is not None) == is_streamed, name
