"""The folder of a study: whole files, here and at a URL; a result that is not whole is no result."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from spoton.errors import StudyError
from spoton.sealing import sealed_json
from spoton.study.run.store import Store

RESULT = {"name": "source.a.0", "kind": "source", "task": "a", "scores": {"test": 1.0}, "seconds": 2.0}


@pytest.fixture(params=["folder", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "study")
    url = f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").makedirs(f"/{tmp_path.name}", exist_ok=True)
    return Store(url)


def test_files_are_written_read_listed_and_removed(store: Store) -> None:
    assert store.read("cells/a.json") is None and store.names("cells", ".json") == set()
    store.write("cells/a.json", b"1")
    store.write("cells/a.json", b"2")
    assert store.read("cells/a.json") == b"2" and store.names("cells", ".json") == {"a"}
    store.remove("cells/a.json")
    store.remove("cells/a.json")
    assert store.names("cells", ".json") == set()


def test_results_come_in_the_order_asked_for(store: Store) -> None:
    store.write("cells/source.a.0.json", sealed_json(RESULT))
    store.write("cells/source.b.0.json", sealed_json(RESULT | {"name": "source.b.0"}))
    names = ["source.b.0", "missing", "source.a.0"]
    results = dict(store.results(names))
    assert list(results) == names and results["missing"] is None
    assert results["source.a.0"] == RESULT == store.result("source.a.0")


@pytest.mark.parametrize(
    "data",
    [
        b"", sealed_json(RESULT)[:-5], sealed_json(RESULT | {"name": "source.c.0"}), b'{"name": "source.a.0"}',
        b"\x00" * 300, b"[]",
    ],
)  # fmt: skip
def test_a_result_that_is_not_whole_or_anothers_is_none(store: Store, data: bytes) -> None:
    store.write("cells/source.a.0.json", data)
    assert store.result("source.a.0") is None
    assert list(store.results(["source.a.0"])) == [("source.a.0", None)]


def test_a_prompt_that_is_not_there_is_told_at_a_url() -> None:
    with pytest.raises(StudyError, match=r"has no prompts/source\.a\.0\.safetensors"):
        Store("memory://nothing-here").prompt("source.a.0")


def test_checkpoints_are_kept_on_this_machine_alone(tmp_path: Path) -> None:
    assert Store(tmp_path).checkpoint("a") == tmp_path / "work" / "a.checkpoint"
    assert Store("memory://there").checkpoint("a") is None


def test_a_place_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise RuntimeError("Name or service not known")  # drivers have errors of their own

    there = Store(f"memory://{tmp_path.name}")
    for name in ("cat_file", "ls", "makedirs", "exists"):
        monkeypatch.setattr(there._system, name, unreachable, raising=False)
    for attempt in (
        lambda: there.read("plan.json"),
        lambda: there.names("cells", ".json"),
        lambda: there.write("plan.json", b""),
        lambda: there.remove("plan.json"),
    ):
        with pytest.raises(StudyError, match="cannot be used: Name or service not known"):
            attempt()
    monkeypatch.setattr("fsspec.core.url_to_fs", unreachable)
    with pytest.raises(StudyError, match="cannot be used: Name or service not known"):
        Store("ftp://nobody/study")
