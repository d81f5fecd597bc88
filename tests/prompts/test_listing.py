"""What is known of a prompt file without its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoton.errors import PromptError, PromptNotFoundError
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.prompts.listing import Identity, read_entry


def test_an_entry_is_the_head_of_its_file(tmp_path: Path, prompt: SoftPrompt) -> None:
    path = PromptLibrary(tmp_path).add(prompt, name="second")
    entry = read_entry(path)
    card = prompt.card
    assert (entry.name, entry.length, entry.dim, entry.path) == ("second", prompt.length, prompt.dim, path)
    assert entry.has_key == (prompt.key is not None)
    assert entry.size_bytes == path.stat().st_size
    assert entry.identity == Identity(card.model_fingerprint, card.task, card.data_hash, card.source)
    words = [entry.name, card.task, card.family, *(card.labels or []), card.source, card.notes]
    assert all(word.lower() in entry.searchable for word in words)


def test_an_entry_from_an_index_has_the_same_identity(
    tmp_path: Path, prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spoton.prompts.library.INDEXED_FROM", 1)
    library = PromptLibrary(tmp_path / "prompts")
    path = library.add(prompt)
    (indexed,) = library.list()
    assert indexed.head is not None
    assert indexed.identity == read_entry(path).identity and indexed.card == read_entry(path).card


def test_files_that_are_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(PromptNotFoundError):
        read_entry(tmp_path / "absent.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(PromptError, match="damaged"):
        read_entry(tmp_path / "cut.safetensors")
