"""What a user writes for a task, and which door it opens."""

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
    assert resolve_task("reviews.csv").source == "file:reviews.csv"
    assert resolve_task(str(reviews), input="text", target="label", seed=1).name == "reviews"
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
