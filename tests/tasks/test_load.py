"""What a user writes for a task, and which door it opens."""

import os
from pathlib import Path

import pytest

from spoton.errors import DataError, SpotonError
from spoton.tasks import list_tasks, resolve_task


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"s{i},{'ab'[i % 2]}\n" for i in range(20)))
    return path


def test_a_file(reviews: Path) -> None:
    assert resolve_task("reviews.csv").source.startswith("file:reviews.csv@")
    assert resolve_task(str(reviews), input="text", target="label", seed=1).name == "reviews"
    assert resolve_task(reviews).data_hash() == resolve_task(str(reviews)).data_hash()
    assert resolve_task("reviews.csv").family == ""
    assert resolve_task("reviews.csv", family="sentiment").family == "sentiment"


def test_a_typing_error_gets_the_nearest_names() -> None:
    with pytest.raises(DataError, match="movie_sentiment"):
        resolve_task("movie_sentimnet")
    with pytest.raises(DataError, match="spoton tasks list"):
        resolve_task("zzzz")


@pytest.mark.parametrize("spec", ["gone.csv", "data/gone.csv", "./gone", "/no/such/place", "a/b/c"])
def test_a_path_that_is_not_there(spec: str, reviews: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        resolve_task(spec)


def test_a_folder(reviews: Path) -> None:
    with pytest.raises(DataError, match="a folder"):
        resolve_task(str(reviews.parent))


def test_options_that_do_not_apply_are_refused() -> None:
    with pytest.raises(DataError, match="a bundled task, to which input and target never apply"):
        resolve_task("boolq", input="text", target="label")
    with pytest.raises(DataError, match="family never applies"):  # it has one
        resolve_task("boolq", family="reading")


@pytest.mark.parametrize("spec", ["hub:nobody/nothing", "nobody/nothing"])
def test_the_hub(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(SpotonError, match="nobody/nothing"):
        resolve_task(spec)


def test_a_file_wins_over_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = list_tasks()[0].name
    Path(name).write_text("x")
    with pytest.raises(DataError, match="ends in nothing"):
        resolve_task(name)


def rows(split: str, labels: str = "ab") -> str:
    return "text,label\n" + "".join(f"{split} {i},{labels[i % 2]}\n" for i in range(20))


@pytest.mark.parametrize("spec", ["mine", "mine/", "./mine", "in/mine", "in/mine/"])
def test_a_folder_with_a_file_for_each_split(spec: str, reviews: Path) -> None:
    folder = reviews.parent / spec
    folder.mkdir(parents=True)
    for name in ("train", "dev", "test"):
        (folder / f"{name}.csv").write_text(rows(name))
    task = resolve_task(spec)
    assert task.name == "mine" and task.source.startswith("file:mine@")
    assert task.splits() == {"train": 20, "validation": 20, "test": 20}
    assert {row.input.split()[0] for row in task.validation} == {"dev"}


def test_parts_of_a_split(reviews: Path) -> None:
    folder = reviews.parent / "parts"
    folder.mkdir()
    for part in range(2):
        (folder / f"train-0000{part}-of-00002.csv").write_text(rows(f"part {part}"))
    assert sum(resolve_task("parts").splits().values()) == 40


def test_two_files_of_one_split_are_refused(reviews: Path) -> None:
    folder = reviews.parent / "two"
    folder.mkdir()
    for name in ("train.csv", "valid.csv", "dev.csv"):
        (folder / name).write_text(rows(name))
    with pytest.raises(DataError, match=r"dev\.csv and valid\.csv.*Keep one"):
        resolve_task("two")


def test_a_file_called_train_has_the_name_of_its_folder(reviews: Path) -> None:
    names = []
    for name in ("reviews", "support"):
        (reviews.parent / name).mkdir()
        (reviews.parent / name / "train.csv").write_text(rows(name))
        names.append(resolve_task(f"{name}/train.csv"))
    assert [task.name for task in names] == ["reviews", "support"]
    assert names[0].source != names[1].source


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_never_a_data_set_of_the_hub(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (reviews.parent / "own").mkdir()
    os.mkfifo(reviews.parent / "own" / "pipe")
    with pytest.raises(DataError, match="it is a pipe, not a regular file"):
        resolve_task("own/pipe")
