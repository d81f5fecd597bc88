"""Ranking by displacement: key minus start, against numbers worked out by hand, with and without an index."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.prompts import library as library_module
from spoton.transfer import retrieve, sources_for

KEY, START = torch.tensor([[5.0, 1.0]]), torch.tensor([[5.0, 0.0]])  # moved by (0, 1)


def prompt(name: str, key: list[float], start: list[float] | None) -> SoftPrompt:
    card = Card(name=name, task=f"{name}-task", model="tiny", model_fingerprint="f00d")
    return SoftPrompt(
        torch.ones(1, 2), card, torch.tensor([key]), None if start is None else torch.tensor([start])
    )


@pytest.fixture(params=["files", "index"])
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromptLibrary:
    """Two sources near the target's key, of which one learned something else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "index":
        monkeypatch.setattr(library_module, "INDEXED_FROM", 1)
    filled = PromptLibrary(tmp_path / "library")
    filled.add(prompt("same-start", [6.0, 0.0], [5.0, 0.0]))  # moved by (1, 0): unrelated
    filled.add(prompt("other-start", [-5.0, 3.0], [-5.0, 1.0]))  # moved by (0, 2): the same direction
    return filled


def test_displacements_are_compared_instead_of_keys(library: PromptLibrary) -> None:
    sources = sources_for([library], "f00d")
    by_key = retrieve(KEY, sources, k=2)
    by_displacement = retrieve(KEY, sources, k=2, start=START)
    assert [one.name for one in by_key] == ["same-start", "other-start"]
    assert [one.name for one in by_displacement] == ["other-start", "same-start"]
    assert [one.similarity for one in by_displacement] == pytest.approx([1.0, 0.0])
    assert {one.by for one in by_displacement} == {"displacement"} and not by_displacement.notes
    assert by_displacement[0].to_json()["by"] == "displacement"


def test_a_prompt_without_a_start_falls_back_to_its_key_and_says_so(library: PromptLibrary) -> None:
    library.add(prompt("imported", [10.0, 2.0], None))
    found = retrieve(KEY, sources_for([library], "f00d"), k=3, start=START)
    by = {one.name: one.by for one in found}
    assert by == {"imported": "key", "other-start": "displacement", "same-start": "displacement"}
    assert found[0].similarity == pytest.approx(1.0)
    (note,) = found.notes
    assert "1 of the sources do not know their start" in note


def test_a_plain_key_is_not_ahead_of_a_displacement(library: PromptLibrary) -> None:
    """The cosine of keys, 1.0, is of another scale than that of displacements, 0.0."""
    library.remove("other-start")
    library.add(prompt("imported", [10.0, 2.0], None))
    sources = sources_for([library], "f00d")
    found = retrieve(KEY, sources, k=2, start=START)
    assert [(one.name, one.by) for one in found] == [("same-start", "displacement"), ("imported", "key")]
    assert [one.similarity for one in found] == pytest.approx([0.0, 1.0])
    assert [one.name for one in retrieve(KEY, sources, k=1, start=START)] == ["same-start"]


def test_a_library_behind_a_url_keeps_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remote = PromptLibrary("memory://displacement")
    remote.add(prompt("far", [0.0, 2.0], [0.0, 1.0]))
    start = remote.get("far").start
    assert start is not None and start.tolist() == [[0.0, 1.0]]
