"""The files of a split: one, or all of its parts; what is unclear is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoton.errors import DataError
from spoton.tasks.parts import parts_of_split

TRAIN = ("train", "training")


def found(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).write_text("text,label\n")
    return [path.name for path in parts_of_split(folder, TRAIN)]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("train.csv",),
        ("Training.CSV.gz",),
        ("train-20.csv",),
        ("train-00000-of-00001.parquet",),
        (
            "train-00000-of-00003-0ab1.parquet",
            "train-00001-of-00003-77.parquet",
            "train-00002-of-00003-c.parquet",
        ),
        ("train_1_of_2.csv", "train_2_of_2.csv"),
        ("train-0.jsonl", "train-1.jsonl"),
        ("train.1.csv", "train.2.csv", "train.3.csv"),
        ("train-2024-01.csv", "train-2024-02.csv"),
    ],
)
def test_one_file_or_all_parts_are_the_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert found(tmp_path, "test.csv", "train.txt", "trainer.csv", *names) == sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        ("train-20.csv", "train.csv"),
        ("train.csv", "train.jsonl"),
        ("train-00000-of-00001.csv", "train.csv"),
        ("train-0.csv", "training-1.csv"),
        ("train-100.csv", "train-20.csv"),
        ("train-01.csv", "train_1.csv"),
        ("train-00000-of-00002.csv", "train-00000-of-00003.csv"),
        ("train-00000-of-00002.csv", "train-00000-of-00002.jsonl"),
        ("train-00000-of-00002.csv", "train-00007-of-00002.csv"),
        ("train-00000-of-00002.csv", "train-1.csv"),
        ("train-1.csv", "train-1b.csv"),
    ],
)
def test_unclear_files_are_refused_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="or give the path of one file") as caught:
        found(tmp_path, *names)
    assert f"{names[0]} and {names[1]}" in str(caught.value)


def test_missing_parts_are_counted_and_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"2 of 3 parts of the train split; missing: 1, counted from 0 as in train-0"
    ):
        found(tmp_path, "train-00000-of-00003.csv", "train-00002-of-00003.csv")


def test_missing_parts_are_counted_from_one_where_the_others_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 3 parts.*missing: 1, 2, counted from 1 as in train-3"):
        found(tmp_path, "train-3-of-3.csv")


def test_a_name_may_claim_any_number_of_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing: 1, 2, 3, 4, 5, and 99999999999999999999993 more"):
        found(tmp_path, "train-0-of-99999999999999999999999.csv")


def test_many_files_are_not_all_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-10\.csv, .* and 3 more, which are not the parts"):
        found(tmp_path, *(f"train-{number}0.csv" for number in range(1, 9)))
