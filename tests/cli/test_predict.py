"""`spoton predict` on files: one answer a row, in order, next to the row's own columns; a file is never a text."""

import csv
import json
import os
from pathlib import Path

import pytest

from spoton.cli.tables import write_table
from spoton.prompts import PromptLibrary
from tests.cli.conftest import Run, a_prompt
from tests.tiny import WIDTH


@pytest.fixture
def labelled(prompts: PromptLibrary, tmp_path: Path) -> Path:
    """A prompt of the tiny model with labels and a template."""
    card = prompts.get("news").card
    facts = {"model": card.model, "model_fingerprint": card.model_fingerprint}
    made = a_prompt("mine", width=WIDTH, labels=["good", "bad"], template="{{ text }}\nVerdict:", **facts)
    return made.save(tmp_path / "labelled.safetensors")


CONTENTS = {
    "new.txt": "The film was dull.\n\nThe meal was\u2028warm.\r\n \nlast\n",
    "new.csv": "text\nThe film was dull.\n\nThe meal was\u2028warm.\n \nlast\n",
    "new.jsonl": "".join(
        json.dumps({"text": text}) + "\n"
        for text in ("The film was dull.", "", "The meal was\u2028warm.", None, "last")
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_answers_are_in_step_with_rows(name: str, run: Run, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(CONTENTS[name].encode())
    ran = run("predict", labelled, "--file", tmp_path / name, "--json")
    found = ran.document["predictions"]
    assert [one["row"] for one in found] == [1, 2, 3, 4, 5]
    assert [one["answer"] is None for one in found] == [False, True, False, True, False]
    assert "2 of 5 rows are empty (the first: row 2)" in ran.stderr
    assert found[4]["input"] == "last\nVerdict:"
    if name == "new.txt":
        assert run("predict", labelled, "--json", stdin=CONTENTS[name]).document["predictions"] == found


def test_an_argument_that_is_a_file_means_the_file(run: Run, labelled: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("text\nThe film was dull.\nThe meal was warm.\n")
    ran = run("predict", labelled, file, "--json")
    assert len(ran.document["predictions"]) == 2 and "is a file" in ran.stderr
    assert run("predict", labelled, file, "A text.").code == 2


def test_a_text_that_looks_like_the_name_of_a_file_is_noted(run: Run, labelled: Path) -> None:
    ran = run("predict", labelled, "reviws.csv", "--json")
    assert ran.document["predictions"][0]["input"] == "reviws.csv\nVerdict:"
    assert "There is no file reviws.csv, so that name itself is answered as a text." in ran.stderr
    for text in ("I sent a file.csv", "A joy."):
        assert "There is no file" not in run("predict", labelled, text).stderr


def test_out_keeps_the_columns_and_says_how_sure(run: Run, labelled: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "new.csv", tmp_path / "answers.csv"
    file.write_text("id;text;answer\n7;The film was dull.;x\n8;;y\n9;The meal was warm.;z\n")
    ran = run("predict", labelled, "--file", file, "--out", out)
    assert ran.code == 0 and f"3 answers are in {out}" in ran.stdout and "answering" in ran.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert list(rows[0]) == ["row", "id", "text", "answer", "answer_", "probability", "p(good)", "p(bad)"]
    assert [row["id"] for row in rows] == ["7", "8", "9"] and [row["answer"] for row in rows] == [
        "x",
        "y",
        "z",
    ]
    assert rows[1]["answer_"] == rows[1]["probability"] == ""
    assert float(rows[0]["probability"]) == max(float(rows[0]["p(good)"]), float(rows[0]["p(bad)"]))
    again = run("predict", labelled, "--file", file, "--out", out)
    assert again.code == 2 and "--overwrite" in again.stderr
    assert run("predict", labelled, "--file", file, "--out", out, "--overwrite").code == 0
    lines = tmp_path / "answers.jsonl"
    run("predict", labelled, "--file", file, "--out", lines)
    assert [json.loads(line)["row"] for line in lines.read_text().splitlines()] == [1, 2, 3]
    assert run("predict", labelled, "--file", file, "--out", tmp_path / "answers.doc").code == 2


def test_a_place_that_cannot_be_written_is_refused_before_a_row_is_answered(
    run: Run, labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    ran = run("predict", labelled, "A text.", "--out", tmp_path / "file" / "answers.csv", "--json")
    assert ran.code == 2 and str(tmp_path / "file") in ran.document["error"] and "float32" not in ran.stderr


def test_kept_answers_leave_with_the_table_and_a_file_in_their_place_stays(
    run: Run, labelled: Path, tmp_path: Path
) -> None:
    out, partial = tmp_path / "answers.csv", tmp_path / "answers.csv.partial"
    before = set(tmp_path.iterdir())
    assert run("predict", labelled, "A text.", "--out", out).code == 0
    assert set(tmp_path.iterdir()) - before == {out}
    partial.write_text("mine")
    ran = run("predict", labelled, "A text.", "--out", out, "--overwrite", "--json")
    assert ran.code == 2 and str(partial) in ran.document["error"] and partial.read_text() == "mine"


def test_answers_never_replace_the_data(run: Run, labelled: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("id;text\n7;The film was dull.\n")
    for given in (("--file", file), (file,)):
        ran = run("predict", labelled, *given, "--out", file, "--overwrite")
        assert ran.code == 2 and "is the data itself" in ran.stderr
    assert file.read_text() == "id;text\n7;The film was dull.\n"


def test_an_empty_text_is_not_the_folder_of_the_process(run: Run, labelled: Path) -> None:
    ran = run("predict", labelled, "")
    assert ran.code == 2 and "There is no text to answer" in ran.stderr and "is a file" not in ran.stderr


def test_texts_and_a_file_are_not_both_answered(run: Run, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("The film was dull.\n")
    ran = run("predict", labelled, "The film was warm.", "--file", tmp_path / "new.txt")
    assert ran.code == 2 and "Keep one of the two" in ran.stderr


@pytest.mark.parametrize("line", [("-",), ("--file", "-")])
def test_a_dash_is_stdin(run: Run, labelled: Path, line: tuple[str, ...]) -> None:
    ran = run("predict", labelled, *line, "--json", stdin="The film was dull.\n")
    assert [one["input"] for one in ran.document["predictions"]] == ["The film was dull.\nVerdict:"]


def test_a_folder_is_not_called_a_file(run: Run, labelled: Path, tmp_path: Path) -> None:
    ran = run("predict", labelled, tmp_path)
    assert ran.code == 2 and "is a folder" in ran.stderr and "is a file" not in ran.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_refused_as_one(run: Run, labelled: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for line in ((tmp_path / "pipe.csv",), ("--file", tmp_path / "pipe.csv")):
        ran = run("predict", labelled, *line)
        assert (
            ran.code == 2
            and "it is a pipe, not a regular file" in ran.stderr
            and "not there" not in ran.stderr
        )


def test_a_list_in_a_row_is_refused_with_its_number(run: Run, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "fine"}\n{"text": ["a", "b"]}\n')
    ran = run("predict", labelled, "--file", tmp_path / "new.jsonl")
    assert ran.code == 2 and "Row 2: " in ran.stderr and "prints a list" in ran.stderr


def test_lines_of_json_have_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    write_table(tmp_path / "a.jsonl", [{"x": float("nan"), "y": [float("inf"), 1.5]}])
    assert json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=pytest.fail) == {
        "x": None,
        "y": [None, 1.5],
    }
