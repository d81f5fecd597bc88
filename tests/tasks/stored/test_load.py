"""A large file gives the task that a small one does: every test loads the same rows in both ways and compares."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from spoton.errors import DataError
from spoton.evaluation.baseline import classical
from spoton.tasks import Task, load_files, load_task_file, load_task_folder
from spoton.tasks.stored import store
from spoton.tasks.stored.rows import StoredRows, target_counts
from spoton.tasks.stored.store import ROWS

SUFFIXES = (".csv", ".tsv", ".jsonl", ".csv.gz", ".jsonl.gz", ".parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows(seed: int, labels: int = 3, n: int = 240) -> list[dict[str, str]]:
    """Rows with equal inputs, contradictions, empty cells, and labels of unequal frequency."""
    draw = random.Random(seed)
    found = []
    for _ in range(n):
        words = " ".join(
            draw.choices(
                "the film was long and 'odd', ünlike others\n 日本 \r\n 😀".split(" "), k=draw.randint(1, 3)
            )
        )
        label = f"label {min(draw.randrange(labels), draw.randrange(labels))}"
        found.append(
            {"text": draw.choice(["", words, words, words]), "label": draw.choice(["", *[label] * 9])}
        )
    return found


def write(path: Path, given: list[dict[str, str]]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given), path)
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in given)
    else:
        plain = path.with_name("plain")
        with plain.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(given[0]), delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writeheader()
            writer.writerows(given)
        text = plain.read_bytes().decode()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def both(monkeypatch: pytest.MonkeyPatch, path: Path, **options: Any) -> tuple[Task, Task]:
    """The task as a small file gives it, and as a large one does."""
    load = load_task_folder if path.is_dir() else load_task_file
    small = load(path, **options)
    assert isinstance(small.train, tuple)
    with monkeypatch.context() as patched:
        patched.setattr(load_files, "LARGE", -1)
        large = load(path, **options)
    assert isinstance(large.train, StoredRows)
    return small, large


def facts(task: Task) -> dict[str, Any]:
    """All of a task as plain values."""
    return vars(task) | {split: tuple(getattr(task, split)) for split in ("train", "validation", "test")}


def same(small: Task, large: Task) -> None:
    for task in (small, large):
        task.data_hash()
    assert facts(large) == facts(small)
    for split in ("train", "validation", "test"):
        assert [each.row for each in getattr(large, split)] == [each.row for each in getattr(small, split)]
    assert large.splits() == small.splits()
    assert list(target_counts(large.train).items()) == list(target_counts(small.train).items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_the_same_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    small, large = both(monkeypatch, write(tmp_path / f"reviews{suffix}", rows(0)))
    same(small, large)
    assert len(small.notes) == 3  # rows dropped, labels guessed, contradictions


def test_rows_are_the_same_over_blocks_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_ROWS_AT_ONCE", 16)
    monkeypatch.setattr(store, "_SORTED_AT_ONCE", 7)
    small, large = both(monkeypatch, write(tmp_path / "reviews.csv", rows(0)))
    same(small, large)
    assert isinstance(large.train, StoredRows)
    parts = list(large.train.store.parts_in_order(large.train.rows))
    assert parts == [(row.input.encode(), row.target.encode()) for row in small.train]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("labels", ["auto", "none", "label 2, label 0, label 1"])
def test_splits_and_samples_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, labels: str
) -> None:
    path = write(tmp_path / "reviews.csv", rows(seed))
    small, large = both(
        monkeypatch, path, labels=labels, split_seed=seed, template="{{ label | length }} {{ text }}"
    )
    same(small, large)
    for size in (1, 7, 100, 10_000):
        same(
            small.limited(train=size, test=size, seed=seed + 1),
            large.limited(train=size, test=size, seed=seed + 1),
        )
    same(small.balanced(), large.balanced())
    same(small.limited(train=50).balanced(), large.limited(train=50).balanced())
    assert small.k_shot(2, seed).train == large.k_shot(2, seed).train
    assert [row for row in large.train[3:9]] == list(small.train[3:9])
    assert pickle.loads(pickle.dumps(large)).data_hash() == small.data_hash()


def test_splits_of_their_own_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    write(folder / "train.jsonl", rows(1))
    write(folder / "dev.csv", rows(2, n=60))
    same(*both(monkeypatch, folder))
    write(folder / "test-00000-of-00002.parquet", rows(3, n=40))
    write(folder / "test-00001-of-00002.parquet", rows(4, n=40))
    small, large = both(monkeypatch, folder)
    same(small, large)
    assert any("also occur in train" in note for note in large.notes)
    same(*both(monkeypatch, folder / "train.jsonl", hold_out=False))
    same(*both(monkeypatch, folder / "train.jsonl", validation=folder / "dev.csv"))


def test_cells_of_json_mean_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": f"say {i % 20}"},
                {"role": "assistant", "content": str(i % 2)},
            ]
        }
        for i in range(60)
    ]
    same(*both(monkeypatch, write(tmp_path / "talk.jsonl", given)))
    given = [{"at": {"body": f"word {i} " * 3, "n": i}, "score": i / 7, "flag": True} for i in range(80)]
    small, large = both(monkeypatch, write(tmp_path / "deep.jsonl", given), input="at.body", target="score")
    same(small, large)
    assert large.metrics == ("pearson", "spearman")


def test_targets_without_number_are_open_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [{"text": f"question {i}", "label": f"answer of several words {i % 45}"} for i in range(90)]
    path = write(tmp_path / "open.csv", given)
    small = load_task_file(path)
    monkeypatch.setattr("spoton.tasks.stored.index.MOST_WORDS", 10)
    monkeypatch.setattr(load_files, "LARGE", -1)
    large = load_task_file(path)
    assert isinstance(large.train, StoredRows) and large.train.store.words is None
    same(small, large)
    longest = large.train.longest_targets(3)
    assert len(set(longest)) == 3 and set(longest) <= {row.target for row in small.train}
    assert len(load_task_file(path, labels="auto", hold_out=False).labels or ()) == 45


def test_the_baseline_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        {"text": f"{'good nice' if i % 3 else 'bad poor'} film {i % 70}", "label": str(i % 3 > 0)}
        for i in range(400)
    ]
    small, large = both(monkeypatch, write(tmp_path / "films.csv", given))
    first, second = classical(small), classical(large)
    assert (
        first.scores == second.scores
        and first.rows == second.rows
        and first.predictions == second.predictions
    )


def test_mistakes_are_told_in_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "long.csv": b"text,label\na,b\nc,d,e\n",
        "quotes.csv": b'text,label\na,"b" c\n',
        "twice.csv": b"text,text\na,b\n",
        "latin.csv": "text,label\nqwe,b\nnaïve,b\n".encode("latin-1"),
        "zeros.csv": b"text,label\na\0,b\n",
        "one.csv": b"text,label\na,b\nc,b\nd,b\n",
        "few.csv": b"text,label\na,b\nc,b\nd,e\nf,e\n",
        "blank.csv": b"text,label\n,b\nc,\n",
        "columns.csv": b"x,y\n1,2\n3,4\n",
        "line.jsonl": b'{"text": "a", "label": "b"}\n[1]\n',
        "broken.jsonl": b'{"text": "a", "label": "b"}\n{"text": \n',
        "picture.csv": b"\x89PNG",
    }  # fmt: skip
    for name, data in texts.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError) as small:
            load_task_file(path)
        monkeypatch.setattr(load_files, "LARGE", -1)
        with pytest.raises(DataError) as large:
            load_task_file(path)
        monkeypatch.setattr(load_files, "LARGE", 2**26)
        assert str(large.value) == str(small.value), name


def test_rows_are_read_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(load_files, "LARGE", -1)
    path = write(tmp_path / "reviews.csv", rows(0))
    told: list[str] = []
    first = load_task_file(path, on_message=told.append)
    again = load_task_file(path, on_message=told.append)
    assert len(told) == 1 and "read and kept in the cache folder once" in told[0]
    assert facts(again) == facts(first)
    load_task_file(path, labels="none", split_seed=3, on_message=told.append)
    assert len(told) == 1  # another division of the same rows
    write(path, rows(9))
    changed = load_task_file(path, on_message=told.append)
    assert len(told) == 2 and changed.data_hash() != first.data_hash() and changed.source != first.source
    next(cache.glob(f"rows/*/{ROWS}")).write_bytes(b"damaged")
    assert load_task_file(path, on_message=told.append).data_hash() == changed.data_hash()
    assert len(told) == 3


def test_what_can_only_be_read_whole_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_files, "LARGE", -1)
    given = rows(0)
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps(given))
    lines = write(tmp_path / "lines.jsonl", given)
    wide = tmp_path / "wide.csv"
    wide.write_bytes(write(tmp_path / "narrow.csv", given).read_bytes().decode().encode("utf-16"))
    tasks = [load_task_file(path) for path in (whole, lines, wide)]
    assert [isinstance(task.train, tuple) for task in tasks] == [True, False, True]
    assert len({task.data_hash() for task in tasks}) == 1


def test_half_of_a_character_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_files, "LARGE", -1)
    path = tmp_path / "cut.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"a{i}" if i != 4 else "\ud83d", "label": str(i % 2)}) + "\n"
            for i in range(40)
        )
    )
    with pytest.raises(DataError, match=r"Example 5 holds half of a character \(U\+D83D\)"):
        load_task_file(path)


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_are_repeated_often_are_divided_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    given = [{"text": "spam", "label": "a"}] * 100 + [{"text": f"a{i}", "label": "a"} for i in range(4)]
    given += [{"text": f"b{i}", "label": "b"} for i in range(50)]
    small, large = both(monkeypatch, write(tmp_path / "reviews.csv", given), split_seed=seed)
    same(small, large)
    assert target_counts(large.train)["a"] >= 100
