"""A user's own files: what is understood, and what one is told when something is wrong."""

import csv
import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from spoton.errors import DataError
from spoton.tasks import Task, load_task_file, resolve_task
from spoton.tasks.files import read_rows

ROWS = [{"text": f"sentence, number {i}\nof many", "label": ("good", "bad")[i % 2]} for i in range(40)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the suffix asks for."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def every(task: Task) -> set[tuple[str, str]]:
    return {(row.input, row.target) for split in (task.train, task.validation, task.test) for row in split}


def test_all_formats_give_the_same_task(tmp_path: Path) -> None:
    tasks = [
        load_task_file(write(tmp_path / f"reviews{suffix}", ROWS), input="text", target="label")
        for suffix in (".csv", ".tsv", ".jsonl", ".parquet")
    ]
    assert len({task.data_hash() for task in tasks}) == 1
    task = tasks[0]
    assert every(task) == {(f"{row['text']}\nAnswer:", row["label"]) for row in ROWS}
    assert task.splits() == {"train": 32, "validation": 4, "test": 4}
    assert (task.name, task.target, task.labels) == ("reviews", "label", ("bad", "good"))
    assert task.source.startswith("file:reviews.csv@")
    assert task.metrics == ("accuracy", "macro_f1")
    assert [note.split(":")[0] for note in task.notes] == ["Targets are read as labels"]


def test_usual_column_names_need_no_naming(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    assert load_task_file(path).data_hash() == load_task_file(path, input="text", target="label").data_hash()


def test_a_template_over_several_columns(tmp_path: Path) -> None:
    rows = [{"title": f"t{i}", "body": f"b{i}", "label": i % 2} for i in range(20)]
    path = write(tmp_path / "a.jsonl", rows)
    task = load_task_file(path, template="{{ title }}: {{ body }}\nGood?", labels=["0", "1"])
    assert ("t3: b3\nGood?", "1") in every(task)
    assert task.template == "{{ title }}: {{ body }}\nGood?"


def test_given_splits_are_kept_and_shared_inputs_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ROWS)
    test = write(tmp_path / "test.csv", [*ROWS[:3], {"text": "new", "label": "bad"}])
    task = load_task_file(path, test=test)
    assert task.splits() == {"train": 36, "validation": 4, "test": 4}
    assert [row.input for row in task.test] == [f"{row['text']}\nAnswer:" for row in ROWS[:3]] + [
        "new\nAnswer:"
    ]
    assert any("of 4 test inputs also occur in train" in note for note in task.notes)
    whole = load_task_file(path, test=test, validation=test)
    assert whole.splits() == {"train": 40, "validation": 4, "test": 4}


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    assert load_task_file(path, seed=1).test != load_task_file(path).test


def test_empty_cells_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "", "label": "bad"}, {"text": "x", "label": " "}, {"text": "y", "label": None}]
    for suffix in (".csv", ".jsonl", ".parquet"):
        task = load_task_file(write(tmp_path / f"a{suffix}", rows))
        assert sum(task.splits().values()) == 40
        assert task.notes[0] == "3 of 43 train rows were dropped: their input or target is empty."


def test_words_that_other_readers_take_for_missing_are_kept(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": ("NA", "null", "None")[i % 3]} for i in range(30)]
    assert load_task_file(write(tmp_path / "a.csv", rows)).labels == ("NA", "None", "null")


def test_many_numbers_are_a_regression(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": i / 7} for i in range(50)]
    task = load_task_file(write(tmp_path / "a.jsonl", rows))
    assert (task.labels, task.metrics) == (None, ("pearson", "spearman"))


def test_few_numbers_are_labels(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": i % 5} for i in range(50)]
    assert load_task_file(write(tmp_path / "a.parquet", rows)).labels == ("0", "1", "2", "3", "4")


def test_free_text_is_open(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": f"answer {i}"} for i in range(10)]
    task = load_task_file(write(tmp_path / "a.csv", rows))
    assert (task.labels, task.metrics) == (None, ("exact_match", "token_f1"))


def test_very_long_cells_are_read_whole(tmp_path: Path) -> None:
    rows = [{"text": f"{i} " + "x" * 200_000, "label": "ab"[i % 2]} for i in range(8)]
    task = load_task_file(write(tmp_path / "a.csv", rows))
    assert max(len(row.input) for row in task.train) > 200_000
    assert csv.field_size_limit() < 200_000  # nobody else's setting was changed


def test_a_byte_order_mark_and_another_encoding(tmp_path: Path) -> None:
    text = "text,label\n" + "".join(f"café {i},{'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "a.csv").write_text(text, encoding="utf-8-sig")
    (tmp_path / "b.csv").write_text(text, encoding="cp1252")
    (tmp_path / "c.csv").write_text(text, encoding="utf-16")
    tasks = [
        load_task_file(tmp_path / "a.csv"),
        load_task_file(tmp_path / "b.csv", encoding="cp1252"),
        load_task_file(tmp_path / "c.csv", encoding="utf-16"),
    ]
    assert len({task.data_hash() for task in tasks}) == 1


GOOD = "text,label\na,x\nb,y\nc,x\nd,y\ne,x\nf,y\n"


@pytest.mark.parametrize(
    ("file", "content", "options", "message"),
    [
        ("a.csv", GOOD, {"input": "txt"}, r"no column 'txt'.*'text', 'label'.*--input"),
        ("a.csv", GOOD, {"target": "lbl"}, r"no column 'lbl'.*'text', 'label'.*--target"),
        (
            "a.csv",
            "t,u,label\na,b,x\nc,d,y\n",
            {},
            r"No column is named text.*Columns there: 't', 'u', 'label'.*--input",
        ),
        ("a.csv", GOOD, {"template": "{{ txt }}"}, "'txt' is undefined.*Columns: text, label"),
        ("a.csv", GOOD, {"template": "{{ text", "input": None}, "not valid Jinja"),
        ("a.csv", GOOD, {"template": "{{ my text }}", "input": None}, r"row\['a column'\]"),
        ("a.csv", GOOD, {"template": "{{ text }}", "input": "text"}, "Keep one"),
        ("a.csv", GOOD.replace("y", "x"), {}, r"one class only, 'x' in all 6 rows.*evaluate --split all"),
        ("a.csv", GOOD, {"labels": ["x", "z"]}, r"'y' \(3 rows\)"),
        ("a.csv", GOOD, {"metrics": ["fi"]}, "choose from accuracy"),
        ("a.csv", GOOD, {"encoding": "utf-9"}, "no encoding 'utf-9'"),
        ("a.csv", "text,label\na,x\nb,x\nc,x\nd,x\ne,y\nf,y\n", {}, "'y' has 2; at least 3"),
        ("a.csv", "", {}, "empty"),
        ("a.csv", "text,label\n", {}, "empty"),
        ("a.csv", "text,label\n,\n , x\n", {}, "None of the 2 train rows has both"),
        ("a.csv", "text,text\na,b\n", {}, "'text' twice"),
        ("a.csv", "text,label\na,x\nb, or c,y\n", {}, r"line 3: 3 cells under 2 columns"),
        ("a.csv", 'text,label\na,x\n"b,y\nc,x\n', {}, "line 4.*quotation marks"),
        ("a.jsonl", "", {}, "empty"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', {}, "line 2 is not JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["b"]\n', {}, "line 3 holds a list of 1; expected an object"),
        ("a.jsonl", '["b"]\n["c"]\n', {}, "line 1 holds a list of 1; expected an object"),
        ("a.json", '[{"text": "a", "label": "x"},\n{"text": "b", "la', {}, "list of rows, but .*cut short"),
        ("a.parquet", "PAR1 no", {}, "cannot be read as Parquet"),
        ("a.xlsx", GOOD, {}, r"cannot be read as an Excel workbook: .*If it is text, name it \.csv"),
        ("a.xlsx", "PK", {}, "cannot be read as an Excel workbook"),
        ("a.xlsx", "", {}, "empty"),
        ("a.doc", "x", {}, r"ends in \.doc; expected one of \.csv.*--delimiter"),
        ("a.csv", "%PDF-1.4", {}, "is a PDF"),
        ("a.csv", "<!DOCTYPE html><html>", {}, "is a web page"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1", {}, "Git LFS pointer"),
        ("a.csv", GOOD, {"encoding": "undefined"}, "no encoding 'undefined'"),
        ("a.csv", GOOD, {"encoding": "hex"}, "no encoding 'hex'"),
        ("a.csv", GOOD.replace("a", "a\0"), {}, "zero bytes"),
        ("a.json", '{"rows": 1, "text": "a"}', {}, "No column"),
        ("a.json", '{\n"a": [1],\n"b": [2]\n}', {}, "one JSON object with 'a', 'b'"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, file: str, content: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        load_task_file(tmp_path / file, **options)


def test_a_workbook_with_a_password_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    with pytest.raises(DataError, match="is an Excel or Word file that is old or has a password"):
        read_rows(tmp_path / "a.xlsx")


def test_a_wrong_encoding_is_located(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\nfine,x\ncaf\xe9,y\n")
    with pytest.raises(DataError, match=r"not utf-8: line 3 has byte 0xe9 at position 21.*--encoding cp1252"):
        load_task_file(tmp_path / "a.csv")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv is not there"):
        load_task_file(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="a folder"):
        load_task_file(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nfine,x\n")
    for files in ({"path": "n" * 300}, {"path": tmp_path / "a.csv", "test": Path("n" * 300)}):
        with pytest.raises(DataError, match=r"Cannot read nnn.*too long"):
            load_task_file(**files)


def test_a_split_without_the_target_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    test = write(tmp_path / "test.csv", [{"text": "a", "id": 1}])
    with pytest.raises(DataError, match="test rows have no column 'label'; they have 'text', 'id'"):
        load_task_file(path, test=test)


TEXT = "text;label\n" + "".join(f"soup {i}, cold;{'ab'[i % 2]}\n" for i in range(20))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_that_of_the_first_line(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(TEXT.replace(";", delimiter))
    assert read_rows(path)[0] == {"text": "soup 0, cold", "label": "a"}


def test_a_line_that_names_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=|\r\n" + TEXT.replace(";", "|"))
    assert read_rows(tmp_path / "a.csv")[19] == {"text": "soup 19, cold", "label": "b"}


def test_a_delimiter_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT.replace(";", "^"))
    assert len(load_task_file(tmp_path / "a.txt", delimiter="^").train) == 16


def test_gzip_utf_16_and_json_are_known_by_their_bytes(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "plain.csv", ROWS))
    data = (tmp_path / "plain.csv").read_bytes()
    (tmp_path / "named.csv.gz").write_bytes(gzip.compress(data))
    (tmp_path / "unnamed.csv").write_bytes(gzip.compress(gzip.compress(data)))
    (tmp_path / "wide.csv").write_bytes(data.decode().encode("utf-16"))
    (tmp_path / "list.json").write_text(json.dumps(ROWS, indent=1))
    (tmp_path / "list.jsonl").write_text(json.dumps(ROWS))
    (tmp_path / "inside.json").write_text(json.dumps({"version": 1, "data": ROWS}, indent=1))
    (tmp_path / "wrong.csv").write_bytes(write(tmp_path / "a.parquet", ROWS).read_bytes())
    for name in (
        "named.csv.gz",
        "unnamed.csv",
        "wide.csv",
        "list.json",
        "list.jsonl",
        "inside.json",
        "wrong.csv",
    ):
        assert read_rows(tmp_path / name) == rows, name


def test_a_gzip_that_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(gzip.compress(TEXT.encode() * 99)[:-30])
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_rows(tmp_path / "a.csv")


def test_an_excel_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "empty"
    sheet = book.create_sheet("rows")
    for row in [
        [None, None, None],
        ["text", "label", None],
        *[[f"s{i}", i % 2, "x"] for i in range(12)],
        [None, None],
    ]:
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "named.csv").write_bytes((tmp_path / "a.xlsx").read_bytes())
    assert read_rows(tmp_path / "a.xlsx")[11] == {"text": "s11", "label": 1}
    assert load_task_file(tmp_path / "named.csv").labels == ("0", "1")


def test_numbers_of_a_parquet_file_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = [f"sentence {i}" for i in range(40)]
    halves = pyarrow.array([(0.1, 2.0)[i % 2] for i in range(40)], pyarrow.float32())
    prices = pyarrow.array([(Decimal("1.50"), Decimal("20.00"))[i % 2] for i in range(40)])
    for column, labels in ((halves, ("0.1", "2")), (prices, ("1.5", "20"))):
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": column}), tmp_path / "a.parquet")
        assert load_task_file(tmp_path / "a.parquet").labels == labels


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    columns = [["a", "b"], ["c", "d"], ["x", "y"]]
    pyarrow.parquet.write_table(
        pyarrow.table(columns, names=["text", "text", "label"]), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"a\.parquet names the column 'text' twice"):
        read_rows(tmp_path / "a.parquet")


def test_class_names_of_a_parquet_file(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"text": [f"s{i}" for i in range(20)], "label": [(0, 1)[i % 2] for i in range(19)] + [-1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    task = load_task_file(tmp_path / "a.parquet")
    assert task.labels == ("no", "yes") and any("1 of 20 train rows" in note for note in task.notes)


def test_one_column_keeps_its_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\none\n\nthree\u2028still three\n\n\n")
    assert [row["text"] for row in read_rows(tmp_path / "a.csv")] == ["one", "", "three\u2028still three"]


def test_numbers_that_are_one_and_cells_that_are_none(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": (1, 1.0, 0, float("nan"))[i % 4]} for i in range(40)]
    task = load_task_file(write(tmp_path / "a.jsonl", rows))
    assert task.labels == ("0", "1") and sum(task.splits().values()) == 30


def test_several_labels_a_row_are_refused_by_name(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": ["a", "b"][: 1 + i % 2]} for i in range(20)]
    for suffix in (".jsonl", ".parquet"):
        with pytest.raises(DataError, match=r"'label' has several targets in one row.*Multi-label"):
            load_task_file(write(tmp_path / f"a{suffix}", rows))


def test_conversations(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q{i}?"},
                {"role": "assistant", "content": ("yes", "no")[i % 2]},
            ]
        }
        for i in range(20)
    ]
    task = load_task_file(write(tmp_path / "a.jsonl", rows))
    assert task.labels == ("no", "yes") and task.template == "{{ prompt }}\nAnswer:"
    assert ("q3?\nAnswer:", "no") in every(task)


def test_rare_labels_are_repeated(tmp_path: Path) -> None:
    rows = [{"text": f"s{i}", "label": "rare" if i % 5 == 0 else "often"} for i in range(50)]
    path = write(tmp_path / "a.csv", rows)
    plain, weighed = load_task_file(path), resolve_task(str(path), class_weights="balanced")
    counts = Counter(row.target for row in weighed.train)
    assert counts["rare"] == counts["often"] == Counter(row.target for row in plain.train)["often"]
    assert (weighed.validation, weighed.test) == (plain.validation, plain.test)
    assert set(weighed.train) == set(plain.train)
