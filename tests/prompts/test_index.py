"""The index of a large library: what it says is what the files say, whatever happens to it."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from spoton.prompts import Card, PromptLibrary, SoftPrompt, index
from spoton.transfer import retrieve, sources_for


def a_prompt(number: int) -> SoftPrompt:
    card = Card(name=f"p{number:02}", task=f"t{number}", model="tiny", model_fingerprint="f00d")
    draw = torch.Generator().manual_seed(number)
    return SoftPrompt(torch.ones(3, 8), card, torch.randn(4, 8, generator=draw), torch.zeros(4, 8))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromptLibrary:
    """Twenty prompts, enough for an index here."""
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    filled = PromptLibrary(tmp_path / "library")
    for number in range(20):
        filled.add(a_prompt(number))
    monkeypatch.setattr("spoton.prompts.library.INDEXED_FROM", 5)
    return filled


def ranked(library: PromptLibrary, k: int = 4) -> list[tuple[str, float]]:
    key = torch.randn(2, 8, generator=torch.Generator().manual_seed(99))
    found = retrieve(key, sources_for([library], "f00d"), k)
    return [(one.name, round(one.similarity, 6)) for one in found]


def plain(library: PromptLibrary, monkeypatch: pytest.MonkeyPatch, k: int = 4) -> list[tuple[str, float]]:
    with monkeypatch.context() as inside:
        inside.setattr("spoton.prompts.library.INDEXED_FROM", 10**9)
        return ranked(library, k)


def test_it_ranks_as_reading_every_prompt_does(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ranked(library) == plain(library, monkeypatch)
    read: list[str] = []
    real = PromptLibrary.get
    monkeypatch.setattr(PromptLibrary, "get", lambda self, name: read.append(name) or real(self, name))
    assert len(ranked(library, k=2)) == 2 and len(read) == 2
    (one, *_) = library.list()
    assert one.head is not None and one.card == library.get(one.name).card
    assert one.has_key is True  # as JSON says it, and not as SQLite does


def test_new_changed_and_removed_prompts_are_seen(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked(library)
    library.remove("p03")
    library.add(a_prompt(77))
    library.add(a_prompt(50), name="p04", replace=True)
    names = [entry.name for entry in library.list()]
    assert "p03" not in names and "p77" in names
    assert ranked(library) == plain(library, monkeypatch)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + b"\xff" * 4096])
@pytest.mark.parametrize("file", ["heads.sqlite", "means-8.f32"])
def test_a_damaged_index_is_made_anew(
    library: PromptLibrary, file: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ranked(library)
    (library.index.folder / file).write_bytes(content)
    assert ranked(library) == expected == plain(library, monkeypatch)


def test_a_missing_index_is_made_anew(library: PromptLibrary) -> None:
    expected = ranked(library)
    (library.index.folder / "means-8.f32").unlink()
    assert ranked(library) == expected
    library.index.clear()
    assert ranked(library) == expected


def test_damaged_prompts_are_returned(library: PromptLibrary) -> None:
    file = library.folder / "p05.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    listing = library.list()
    assert listing.damaged.keys() == {"p05"} and "p05" not in [entry.name for entry in listing]


def test_means_are_read_in_parts_in_any_order_of_the_file(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of three rows; prompts that were added and replaced later lie behind those of later names."""
    monkeypatch.setattr(index, "_ROWS_AT_ONCE", 3)
    ranked(library)
    for number, name in ((60, "p02"), (61, "p17"), (62, "a-first-name")):
        library.add(a_prompt(number), name=name, replace=True)
    library.remove("p09")
    assert ranked(library, 20) == plain(library, monkeypatch, 20)
    heads = [entry.head for entry in library.list() if entry.head is not None]
    parts = [part.tolist() for part, _, _ in library.index.means(heads)]
    assert max(map(len, parts)) <= 3 and sorted(chain(*parts)) == list(range(20))


def test_a_file_that_can_be_read_again_is_listed_again(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, **_: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as inside:
        inside.setattr("spoton.prompts.soft_prompt.read_bytes", refused)
        assert len(library.list().damaged) == 20
    listing = library.list()
    assert len(listing) == 20 and not listing.damaged
