"""The starts that the experiment compares, its cells and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.related_source import RECIPE, run_cell, start_of, table
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from tests.tiny import WIDTH, draw, tiny, toy_task


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    model, library = tiny("llama"), PromptLibrary(tmp_path / "library")
    for number, name in enumerate(("mnli", "sst2")):
        card = Card(name=name, task=name, model=model.name, model_fingerprint=model.fingerprint)
        library.add(SoftPrompt(draw(4, WIDTH, seed=number), card))
    return library


def test_starts_are_the_sources_and_noise_of_the_same_scale(library: PromptLibrary) -> None:
    value = library.get("mnli").value
    assert start_of("scratch", library, 0) == (None, [])
    found, parents = start_of("mnli", library, 0)
    assert found is not None
    assert torch.equal(found, value)
    assert [parent.name for parent in parents] == ["mnli"]
    first, again, other = (start_of("noise", library, seed)[0] for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.pow(2).mean().sqrt() == pytest.approx(float(value.pow(2).mean().sqrt()), rel=0.3)


def test_a_cell_holds_the_scores_before_and_after(library: PromptLibrary, tmp_path: Path) -> None:
    recipe = RECIPE.changed(
        length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, warmup=1, init="vocabulary"
    )
    for seed in (0, 1):
        cell = run_cell(
            tiny("llama"), toy_task(), "mnli", library, recipe.changed(seed=seed), tmp_path / f"{seed}.json"
        )
        assert (cell["untuned"] is None) == (seed == 1)
        assert cell["evaluations"][0]["step"] == 0  # an untuned source may win
        (tmp_path / f"rte.mnli.{seed}.json").write_text(json.dumps(cell))
    lines = table(tmp_path).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| rte | mnli | ")
    assert lines[2].endswith(" | 2 |")
