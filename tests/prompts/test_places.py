"""Libraries are opened by what people call them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoton.errors import LibraryError
from spoton.prompts.places import STARTER, open_library


def test_the_library_that_comes_with_spoton_has_a_name() -> None:
    assert "sst2" in {entry.name for entry in open_library(STARTER).list()}


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert open_library(str(tmp_path)).list() == []
    with pytest.raises(LibraryError, match="no such folder"):
        open_library(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_the_url_of_a_folder_that_is_not_there_is_refused_too(tmp_path: Path, scheme: str) -> None:
    assert open_library(f"{scheme}://{tmp_path}").list() == []
    with pytest.raises(LibraryError, match="no such folder"):
        open_library(f"{scheme}://{tmp_path}/nowhere")
