"""The tables with many classes: what rows they have, which sources they may not have, and their table of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.many_classes import (
    KINDS,
    ROWS,
    TASKS,
    TEST,
    library_without,
    main,
    questions,
    table,
    table_of,
)
from spoton import starter_library


def _cell(scratch: float, transfer: float, chosen: str) -> dict[str, Any]:
    arms = {"zero_shot": 10.0, "classical": 70.0, "prompt_tuning": scratch, "transfer": transfer}
    return {
        "scores": {arm: {"test": score} for arm, score in arms.items()}, "metric": "accuracy", "majority": 20.0,
        "classical_on_all_rows": {"scores": {"test": {"accuracy": 72.0}}}, "chosen": chosen, "classes": 16,
        "splits": {"train": 420, "validation": 41, "test": 500}, "retrieved": [{"name": "snli"}],
    }  # fmt: skip


def test_a_table_is_read_as_a_users_and_has_other_test_rows(tmp_path: Path) -> None:
    rows = [(f"Text {number}, with a comma", f"kind {number % 9}") for number in range(ROWS + TEST + 50)]
    task = table_of(rows, 0, tmp_path)
    splits = task.splits()
    assert splits["train"] + splits["validation"] == ROWS and splits["test"] == TEST
    assert task.labels is not None and len(task.labels) == 9
    inputs = [row.input for part in (task.train, task.validation, task.test) for row in part]
    assert len(set(inputs)) == ROWS + TEST
    assert {row.input for row in table_of(rows, 1, tmp_path).test} != {row.input for row in task.test}


def test_questions_have_their_kinds_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trec").mkdir()
    lines = [{"text": "Who ?", "fine_label": "HUM:ind"}, {"text": "How far ?", "fine_label": "NUM:dist"}]
    (tmp_path / "trec" / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert questions(str(tmp_path)) == [("Who ?", "person")]
    assert len(set(KINDS.values())) == 16
    monkeypatch.setenv("SPOTON_DATA_DIR", str(tmp_path))
    assert questions(None) == [("Who ?", "person")]
    monkeypatch.delenv("SPOTON_DATA_DIR")
    with pytest.raises(SystemExit, match="give --data-dir"):
        questions(None)


@pytest.mark.parametrize("name", list(TASKS))
def test_a_source_of_the_same_texts_is_left_out(name: str, tmp_path: Path) -> None:
    seen = TASKS[name][1]
    every = {entry.name for entry in starter_library().list()}
    assert {entry.name for entry in library_without(seen, tmp_path / "library").list()} == every - {seen}


def test_the_table_has_a_row_for_each_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "question_kinds.0.json").write_text(json.dumps(_cell(90.0, 88.0, "prompt_tuning")))
    (tmp_path / "question_kinds.1.json").write_text(json.dumps(_cell(86.0, 88.0, "transfer")))
    (tmp_path / "medical_subject.0.prompt.json").write_text("{")  # the record of an unfinished cell
    (tmp_path / "setfit").mkdir()
    (tmp_path / "setfit" / "question_kinds.setfit.0.json").write_text(json.dumps({"test": 80.0}))
    (row,) = table(tmp_path).splitlines()[2:]
    assert row == (
        "| question_kinds | 16 | 420 | 20.0 | 10.0 ± 0.0 | 70.0 ± 0.0 | 72.0 ± 0.0 | 88.0 ± 2.8 | 88.0 ± 0.0 | snli "
        "| 89.0 ± 1.4 |  | 80.0 | 2 |"
    )
    monkeypatch.setattr("sys.argv", ["many_classes", "--table", "--cells", str(tmp_path)])
    main()
    assert capsys.readouterr().out == table(tmp_path) + "\n"
