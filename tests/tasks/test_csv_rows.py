"""CSV text as programs write it: blank lines above the header, and lines that name the delimiter."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from spoton.errors import DataError
from spoton.tasks.csv_rows import csv_table
from spoton.tasks.files import read_rows
from spoton.tasks.stored.stream import row_stream

ROWS = [{"text": "a", "label": "b"}, {"text": "c d", "label": ""}]


def rows(text: str, name: str = "a.csv", delimiter: str | None = None) -> list[dict[str, Any]]:
    return list(csv_table(io.StringIO(text, newline=""), Path(name), delimiter)[1])


@pytest.mark.parametrize("above", ["", "\n", "\r\n\r\n", "  \n\t\n", ",\n", ",,,\n\n"])
def test_blank_lines_above_the_header_are_skipped(above: str) -> None:
    assert rows(f"{above}text,label\na,b\nc d,\n") == ROWS


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.TSV.gz"])
@pytest.mark.parametrize(
    ("line", "delimiter"),
    [
        ("sep=\t", "\t"),
        ("sep=\\t", "\t"),
        ('"sep=\t"', "\t"),
        ("SEP=;", ";"),
        ("sep=;,,,", ";"),
        ("\nsep=|\n\n", "|"),
        ("sep=^", "^"),
    ],
)
def test_a_line_names_the_delimiter(name: str, line: str, delimiter: str) -> None:
    text = f"{line}\n" + "text,label\na,b\nc d,\n".replace(",", delimiter)
    assert rows(text, name) == ROWS
    assert rows(text.replace("\n", "\r\n"), name) == ROWS


def test_small_and_large_files_are_read_alike(tmp_path: Path) -> None:
    for name, text in {
        "a.csv": "\n\ntext,label\na,b\nc d,\n",
        "a.tsv": "sep=\t\ntext\tlabel\na\tb\nc d\t\n",
        "b.tsv": "sep=;\ntext;label\na;b\nc d;\n",
    }.items():
        (tmp_path / name).write_text(text)
        stream = row_stream([tmp_path / name])
        assert stream is not None and stream.names == ["text", "label"]
        assert [{key: value or "" for key, value in row.items()} for row in stream] == ROWS
        assert read_rows(tmp_path / name) == ROWS


@pytest.mark.parametrize("line", ["sep=", "sep=a", 'sep="', '"sep="'])
def test_a_line_that_names_no_delimiter_is_refused(line: str) -> None:
    with pytest.raises(DataError, match=r"a\.csv, line 1 is .*sep=.*delete that line, or name the delimiter"):
        rows(f"{line}\ntext,label\na,b\n")
    assert rows(f"{line}\ntext,label\na,b\nc d,\n", delimiter=",") == ROWS


def test_a_column_may_be_called_sep() -> None:
    assert rows("sep=size,label\na,b\n") == [{"sep=size": "a", "label": "b"}]


def test_lines_are_counted_from_the_top_of_the_file() -> None:
    with pytest.raises(DataError, match="line 5: 3 cells under 2 columns"):
        rows("\nsep=;\ntext;label\na;b\na;b;c\n")
    with pytest.raises(DataError, match=r"line 4: .* quotation marks"):
        rows('\n\ntext,label\n"a"x,b\n')


def test_a_blank_line_is_an_empty_cell_of_a_single_column() -> None:
    assert rows("\ntext\na\n\nb\n\n") == [{"text": "a"}, {"text": ""}, {"text": "b"}]


def test_only_blank_lines_are_no_rows() -> None:
    assert rows("\n\n,,\n") == []


def test_columns_without_a_name_are_called_by_their_place() -> None:
    (row,) = rows("text,,label,,\na,1,b,,\n")
    assert row == {"text": "a", "column 2": "1", "label": "b", "column 4": "", "column 5": ""}


def test_spaces_behind_delimiters_are_no_part_of_cells() -> None:
    assert rows('text, "label"\n"a, b", "c"\nd,  e\n') == [
        {"text": "a, b", "label": "c"},
        {"text": "d", "label": "e"},
    ]
    assert rows('text,label\na, "b" c\n') == [{"text": "a", "label": ' "b" c'}]
    with pytest.raises(DataError, match=r"line 3: 3 cells under 2 columns"):
        rows("text, label\na, b\na, b, c\n")
