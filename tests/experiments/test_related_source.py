"""The starts that the experiment compares, its cells and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.cells import facts_of, require_same
from experiments.related_source import CELLS, RECIPE, STARTS, Cell, main, run_cells, start_of, table
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


SHORT = RECIPE.changed(
    length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, warmup=1, init="vocabulary"
)


def test_a_cell_holds_the_scores_before_and_after(library: PromptLibrary, tmp_path: Path) -> None:
    paths = {tmp_path / f"rte.mnli.{seed}.json": (Cell("rte", "mnli", seed), toy_task()) for seed in (0, 1)}
    run_cells(tiny("llama"), paths, library, SHORT)
    for seed, path in enumerate(paths):
        cell = json.loads(path.read_text())
        assert (cell["seed"], cell["untuned"] is None) == (seed, seed == 1)
        assert cell["evaluations"][0]["step"] == 0  # an untuned source may win
        assert cell["together"] == 2
    lines = table(tmp_path).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| rte | mnli | ")
    assert lines[2].endswith(" | 2 |  |")  # no cell of tuning from scratch to compare the speed with


def test_starts_in_shared_passes_have_the_results_of_starts_alone(
    library: PromptLibrary, tmp_path: Path
) -> None:
    paths = {tmp_path / f"rte.{start}.1.json": (Cell("rte", start, 1), toy_task()) for start in STARTS}
    run_cells(tiny("llama"), paths, library, SHORT)
    for path, cell in paths.items():
        alone = tmp_path / f"{path.stem}.alone"
        run_cells(tiny("llama"), {alone: cell}, library, SHORT)
        one, other = (json.loads(file.read_text()) for file in (path, alone))
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)
        for key in ("start", "test", "validation", "recipe", "parents"):
            assert one[key] == other[key]


def test_the_table_says_when_a_start_reaches_the_best_score_of_scratch(tmp_path: Path) -> None:
    cell = {"majority": 50.0, "untuned": None, "test": 70.0, "uncalibrated": 70.0}
    for start, scores in (
        ("scratch", (50.0, 60.0, 70.0)),
        ("mnli", (60.0, 80.0, 80.0)),
        ("sst2", (50.0, 55.0, 60.0)),
    ):
        looks = [{"step": 20 * n, "validation": score} for n, score in enumerate(scores)]
        record = cell | {"start": start, "seed": 0, "evaluations": looks}
        (tmp_path / f"sick.{start}.0.json").write_text(json.dumps(record))
    ends = [line.split(" | ")[-1] for line in table(tmp_path).splitlines()[2:]]
    assert ends == ["40 (1 of 1) |", "10 (1 of 1) |", "never (0 of 1) |"]


def test_finished_cells_of_another_recipe_rows_or_model_are_refused(
    library: PromptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = tiny("llama"), tmp_path / "rte.mnli.1.json"
    run_cells(model, {path: (Cell("rte", "mnli", 1), toy_task())}, library, SHORT)
    own = SHORT.changed(seed=1)
    require_same(path, facts_of(model, toy_task(), own))
    for facts, other in (
        (facts_of(model, toy_task(), own.changed(steps=6)), "another recipe"),
        (facts_of(model, toy_task(validation=()), own), "other rows"),
        (facts_of(tiny("llama", seed=1), toy_task(), own), "another model"),
    ):
        with pytest.raises(SystemExit, match=f"is of {other}. Remove it, or name other --cells"):
            require_same(path, facts)

    # The command line looks at what is finished before it runs the rest.
    monkeypatch.setattr("experiments.related_source.model_of", lambda arguments: model)
    monkeypatch.setattr("experiments.related_source.task_of", lambda *name, **options: toy_task())
    words = [
        "--cells",
        tmp_path,
        "--library",
        library.folder,
        "--targets",
        "rte",
        "--starts",
        "mnli",
        "--seeds",
        1,
    ]
    monkeypatch.setattr("sys.argv", ["related_source", *map(str, words)])
    for seed in (1, 2):  # the cell itself, and one that would join it
        monkeypatch.setattr("sys.argv", ["related_source", *map(str, words[:-1]), str(seed)])
        with pytest.raises(SystemExit, match="another recipe"):
            main()


@pytest.mark.parametrize(("folder", "length"), [(CELLS, 32), (CELLS / "100_tokens", 100)])
def test_the_published_cells_of_one_folder_have_one_recipe(folder: Path, length: int) -> None:
    recipe = RECIPE.changed(length=length)
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert found and all(cell["recipe"] == recipe.changed(seed=cell["seed"]).model_dump() for cell in found)
