"""Libraries behind URLs, on fsspec's file system in memory."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest
import torch

from spoton.errors import LibraryError, PromptError
from spoton.prompts import PromptLibrary, SoftPrompt


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder in memory that nobody else uses."""
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    return f"memory://{uuid.uuid4()}/prompts"


def test_add_get_list_remove(url: str, prompt: SoftPrompt) -> None:
    library = PromptLibrary(url)
    assert library.remote and library.list() == [] and library.place == url
    library.add(prompt)
    library.add(prompt, name="second")
    other = PromptLibrary(url)
    assert [entry.name for entry in other.list()] == ["movies", "second"]
    assert torch.equal(other.get("movies").value, prompt.value)
    assert other.get("second").card.name == "second"
    assert other.search("größer")[0].card == prompt.card
    assert other.verify().ok == ["movies", "second"]
    library.remove("movies")
    assert [entry.name for entry in other.list()] == ["second"]
    with pytest.raises(LibraryError, match=f"library {url} has no prompt 'movies'"):
        other.get("movies")
    with pytest.raises(LibraryError, match=f"library {url} has no prompt 'movies'"):
        other.remove("movies")


def test_a_replaced_prompt_reaches_readers(url: str, prompt: SoftPrompt) -> None:
    library, reader = PromptLibrary(url), PromptLibrary(url, readonly=True)
    library.add(prompt)
    assert reader.get("movies").dim == 3
    with pytest.raises(LibraryError, match=f"library {url} already has a prompt 'movies'"):
        library.add(SoftPrompt(torch.zeros(2, 5), prompt.card))
    library.add(SoftPrompt(torch.zeros(2, 5), prompt.card), replace=True)
    assert reader.get("movies").dim == 5
    with pytest.raises(LibraryError, match=f"library {url} is read-only"):
        reader.add(prompt, name="third")


def test_what_is_unchanged_is_not_fetched_again(url: str, prompt: SoftPrompt) -> None:
    library = PromptLibrary(url)
    path = library.add(prompt)
    fetched = path.stat()
    library.list()
    PromptLibrary(url).get("movies")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (fetched.st_ino, fetched.st_mtime_ns)


def test_damage_is_reported_by_name(url: str, prompt: SoftPrompt) -> None:
    library = PromptLibrary(url)
    library.add(prompt)
    remote, root = fsspec.core.url_to_fs(url)
    remote.pipe_file(f"{root}/cut.safetensors", b"\x08\x00")
    remote.pipe_file(f"{root}/notes.txt", b"not a prompt")
    assert [entry.name for entry in library.list()] == ["movies"]
    assert set(library.damaged) == {"cut"} == set(library.verify().damaged)
    with pytest.raises(PromptError, match="damaged"):
        library.get("cut")


def test_a_file_url_is_the_folder(tmp_path: Path, prompt: SoftPrompt) -> None:
    library = PromptLibrary(f"file://{tmp_path}/my%20prompts")
    assert library.remote is None
    assert library.add(prompt) == tmp_path / "my prompts" / "movies.safetensors"


def test_urls_that_nothing_opens(url: str) -> None:
    with pytest.raises(LibraryError, match="nope://team cannot be opened: Protocol not known"):
        PromptLibrary("nope://team")


def test_a_driver_that_connects_at_once_and_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str) -> None:
        raise OSError(-2, "Name or service not known")  # an error of no number that the system has

    monkeypatch.setattr("fsspec.core.url_to_fs", unreachable)
    with pytest.raises(
        LibraryError, match=r"ftp://nobody/prompts cannot be used: .*not known\. Check the address"
    ):
        PromptLibrary("ftp://nobody/prompts")


def test_a_copy_that_was_cut_short_is_fetched_again(url: str, prompt: SoftPrompt) -> None:
    library = PromptLibrary(url)
    copy = library.add(prompt)
    copy.write_bytes(copy.read_bytes()[:50])
    assert [entry.name for entry in library.list()] == ["movies"]
    assert library.verify().damaged == {}


def test_a_file_that_vanishes_while_the_mirror_is_updated(
    url: str, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = PromptLibrary(url)
    library.add(prompt)
    library.add(prompt, name="second")
    remote, _ = fsspec.core.url_to_fs(url)
    read = remote.cat_file

    def cat_file(path: str) -> bytes:
        if path.endswith("movies.safetensors"):
            remote.rm_file(path)  # by another process, after this one has read the folder
        content: bytes = read(path)
        return content

    for copy in library.folder.glob("*.safetensors"):
        copy.unlink()
    with monkeypatch.context() as inside:
        inside.setattr(remote, "cat_file", cat_file)
        assert [entry.name for entry in library.list()] == ["second"]
    assert library.verify().damaged == {}
