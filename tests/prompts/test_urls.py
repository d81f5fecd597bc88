"""Whether the place of a library is a folder of this machine."""

import sys
from pathlib import Path

import pytest

from spoton.prompts.library import PromptLibrary
from spoton.prompts.urls import is_url, local_folder


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("prompts", "prompts"),
        (Path("a/b"), "a/b"),
        ("file:///data/my%20prompts", "/data/my prompts"),
        ("local:///data", "/data"),
        ("memory://team", None),
        ("hf://owner/name", None),
    ],
)
def test_local_folder(place: str | Path, folder: str | None) -> None:
    assert local_folder(place) == (None if folder is None else Path(folder))
    assert is_url(place) == ("://" in str(place))


def test_a_folder_needs_no_driver_of_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spoton.prompts.remote_folder", None)
    assert PromptLibrary(tmp_path).list() == []
