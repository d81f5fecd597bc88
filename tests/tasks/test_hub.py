"""Data sets of the Hub: columns and class names from data in memory; loading from a folder of files."""

from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from spoton.errors import DataError, DownloadError
from spoton.tasks import load_hub_task
from spoton.tasks.hub import hub_rows, task_from_datasets

FEATURES = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "neutral", "pos"])}
)


def data(count: int, labels: tuple[int, ...] = (0, 2)) -> datasets.Dataset:
    rows = {"text": [f"s{i}" for i in range(count)], "label": [labels[i % len(labels)] for i in range(count)]}
    return datasets.Dataset.from_dict(rows, features=FEATURES)


@pytest.mark.parametrize("target", ["label", None])
def test_class_numbers_become_names_in_the_order_of_the_data_set(target: str | None) -> None:
    task = task_from_datasets({"train": data(20)}, name="t", source="hub:o/t", target=target)
    assert task.labels == ("neg", "neutral", "pos")  # also the one that no row has
    assert {row.target for row in task.train} == {"neg", "pos"}
    assert task.splits() == {"train": 16, "validation": 2, "test": 2}


def test_hidden_labels_are_dropped_and_noted() -> None:
    task = task_from_datasets(
        {"train": data(20), "test": data(10, (0, -1))},
        name="t",
        source="hub:o/t",
        input="text",
        target="label",
    )
    assert task.splits()["test"] == 5
    assert "5 of 10 test rows were dropped: their input or target is empty." in task.notes


def test_wholly_hidden_labels_are_an_error() -> None:
    with pytest.raises(DataError, match="None of the 10 test rows"):
        task_from_datasets({"train": data(20), "test": data(10, (-1,))}, name="t", source="s", target="label")


def test_class_names_in_a_template() -> None:
    task = task_from_datasets(
        {"train": data(20)}, name="t", source="s", template="{{ text }} is {{ label }}", target="label"
    )
    assert any(row.input == "s0 is neg" for row in (*task.train, *task.validation, *task.test))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set as `datasets` finds it in a folder, which it loads the way it loads one of the Hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "reviews").mkdir()
    for split, count in (("train", 30), ("test", 6)):
        rows = "".join(f"{split} {i},{'ab'[i % 2]}\n" for i in range(count))
        (tmp_path / "reviews" / f"{split}.csv").write_text("text,label\n" + rows)
    return str(tmp_path / "reviews")


def test_load_with_a_given_test_split(folder: str) -> None:
    task = load_hub_task(folder, input="text", target="label", test_split="test", family="f")
    assert task.splits() == {"train": 28, "validation": 2, "test": 6}
    assert (task.name, task.family, task.labels) == ("reviews", "f", ("a", "b"))
    assert task.source == f"hub:{folder}"


def test_an_unknown_split_is_named_with_those_there(folder: str) -> None:
    with pytest.raises(DataError, match=r"no split 'dev'\. Splits there: train, test"):
        load_hub_task(folder, validation_split="dev")


def test_a_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"nobody/nothing.*network"):
        load_hub_task("nobody/nothing")


@pytest.mark.parametrize("proxies", [{}, {"https": "http://proxy:8080"}])
def test_a_host_without_address_is_not_asked(
    proxies: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(host: str, *arguments: object) -> None:
        raise OSError(f"{host} is unknown")

    offline: list[tuple[bool, bool]] = []

    def load_dataset(*arguments: object, **others: object) -> None:
        offline.append((datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE))
        raise ConnectionError("not reached")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("spoton.hub_offline.getproxies", lambda: proxies)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    with pytest.raises(DownloadError, match="not reached" if proxies else r"no address was found for \S+,"):
        load_hub_task("nobody/nothing")
    assert offline == [before if proxies else (True, True)]
    assert (datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE) == before


def test_rows_of_several_splits_with_a_cap(folder: str) -> None:
    rows = hub_rows(folder, splits={"train": "train+test", "validation": "test"})
    assert [len(rows[split]) for split in ("train", "validation")] == [36, 6]
    capped = hub_rows(folder, splits={"train": "train"}, max_rows=5)
    assert len(capped["train"]) == 5 == len({row["text"] for row in capped["train"]})
    assert capped == hub_rows(folder, splits={"train": "train"}, max_rows=5)


def test_a_stream_is_capped_and_the_same_again(folder: str) -> None:
    rows = hub_rows(folder, splits={"train": "train"}, stream=True, max_rows=7)
    assert len(rows["train"]) == 7
    assert rows == hub_rows(folder, splits={"train": "train"}, stream=True, max_rows=7)
    assert len(hub_rows(folder, splits={"train": "train"}, stream=True)["train"]) == 30


def test_class_names_inside_lists_and_nested_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    act = datasets.ClassLabel(names=["ASK", "TELL"])
    features = datasets.Features(
        {"labels": datasets.List(act), "acts": datasets.List({"act": act, "slot": datasets.Value("string")})}
    )
    rows = [{"labels": [1, 0], "acts": [{"act": 1, "slot": "time"}, {"act": -1, "slot": ""}]}]
    loaded = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows, features=features)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    found = hub_rows("o/n", splits={"train": "train"})["train"][0]
    assert found["labels"] == ["TELL", "ASK"]
    assert found["acts"] == [{"act": "TELL", "slot": "time"}, {"act": None, "slot": ""}]
