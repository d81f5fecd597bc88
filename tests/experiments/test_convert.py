"""The cells of the conversion experiment, their order and their table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cells import facts_of, require_alike, require_same
from experiments.convert import (
    CELLS,
    LONGER,
    RECIPES,
    Cell,
    Models,
    main,
    planned,
    run_cell,
    table,
    wanted_cells,
    words,
)
from experiments.pages import filled
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from tests.tiny import WIDTH, draw, tiny, toy_task

SHORT = RECIPES["smollm2"].changed(
    length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, warmup=1, init="vocabulary"
)


@pytest.fixture
def models() -> Models:
    return Models(tiny("llama"), tiny("gemma3", seed=1, hidden_size=60))


@pytest.fixture
def library(tmp_path: Path, models: Models) -> PromptLibrary:
    library, model = PromptLibrary(tmp_path / "library"), models.smollm2
    card = Card(name="sst2", task="sst2", model=model.name, model_fingerprint=model.fingerprint)
    library.add(SoftPrompt(draw(4, WIDTH), card))
    return library


@pytest.mark.parametrize("start", ["scratch", "relative", "linear"])
def test_a_cell_tunes_for_the_second_model(
    start: str, models: Models, library: PromptLibrary, tmp_path: Path
) -> None:
    cell = Cell("smollm2-to-gemma", "sst2", start, 0)
    path = tmp_path / cell.file
    run_cell(models, path, cell, toy_task(), library, SHORT)
    found = json.loads(path.read_text())
    assert found["model_fingerprint"] == models.gemma.fingerprint
    assert [parent["name"] for parent in found["parents"]] == ([] if start == "scratch" else ["sst2"])
    assert (found["untuned"] is None) == (start == "scratch")
    assert (found["conversion"] or start).startswith(
        f"converted from tiny-llama ({models.smollm2.fingerprint}): {start}"
        if found["parents"]
        else "scratch"
    )


def test_the_way_back_starts_from_a_prompt_that_is_tuned_first(
    models: Models, library: PromptLibrary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, start = (Cell("gemma-to-smollm2", "sst2", name, 0) for name in ("source", "linear"))
    run_cell(models, tmp_path / start.file, start, toy_task(), library, SHORT)
    assert "source prompt is not here" in capsys.readouterr().err
    for cell in (source, start):
        run_cell(models, tmp_path / cell.file, cell, toy_task(), library, SHORT)
    tuned, converted = (json.loads((tmp_path / cell.file).read_text()) for cell in (source, start))
    assert tuned["model_fingerprint"] == models.gemma.fingerprint
    assert converted["model_fingerprint"] == models.smollm2.fingerprint
    assert converted["conversion"].startswith("converted from tiny-gemma3")


def test_finished_cells_of_another_recipe_are_refused(
    models: Models, library: PromptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("smollm2-to-gemma", "sst2", "scratch", 1)
    path = tmp_path / cell.file
    run_cell(models, path, cell, toy_task(), library, SHORT)
    require_same(path, facts_of(models.gemma, toy_task(), SHORT.changed(seed=1)))
    monkeypatch.setattr("experiments.convert.model_of", lambda arguments, name: models.gemma)
    monkeypatch.setattr("experiments.convert.task_of", lambda *name, **options: toy_task())
    words = ["--gemma", "a file", "--cells", tmp_path, "--directions", "smollm2-to-gemma", "--tasks", "sst2"]
    monkeypatch.setattr("sys.argv", ["convert", *map(str, words), "--starts", "scratch", "--seeds", "1"])
    with pytest.raises(SystemExit, match="another recipe"):
        main()


def test_the_published_cells_have_one_recipe_a_model() -> None:
    for folder, length in ((CELLS, 32), (LONGER, 100)):
        found = [json.loads(path.read_text()) for path in folder.glob("*-to-*.json")]
        for one in found:
            cell = Cell(one["direction"], one["task"], one["start"], one["seed"])
            assert one["recipe"] == cell.recipe.changed(length=length).model_dump()
        assert found


def test_cells_of_another_recipe_are_not_joined_by_those_of_other_seeds() -> None:
    require_alike(LONGER, planned, "*-to-*.json")
    with pytest.raises(SystemExit, match="another recipe"):
        require_alike(CELLS, planned, "*-to-*.json")


def test_whole_seeds_come_first_and_sources_before_what_they_are_for() -> None:
    cells = wanted_cells(["gemma-to-smollm2"], ["sst2", "trec"], ["scratch", "linear"], [0, 1])
    assert [tuple(cell)[1:] for cell in cells] == [
        ("sst2", "source", 0), ("sst2", "scratch", 0), ("sst2", "linear", 0),
        ("trec", "source", 0), ("trec", "scratch", 0), ("trec", "linear", 0),
        ("sst2", "scratch", 1), ("sst2", "linear", 1), ("trec", "scratch", 1), ("trec", "linear", 1),
    ]  # fmt: skip


def test_words_of_one_model_are_found_again() -> None:
    model = tiny("llama")
    found = words(model, model, count=10)
    assert found["linear"] == {"cosine": 1.0, "nearest": 100.0}
    assert found["relative"]["nearest"] == 100.0


def test_the_table_compares_with_scratch(tmp_path: Path) -> None:
    for start, scores in (("scratch", (50.0, 60.0, 70.0)), ("linear", (60.0, 80.0, 80.0))):
        for seed in (0, 1):
            cell = Cell("smollm2-to-gemma", "trec", start, seed)
            evaluations = [{"step": 20.0 * n, "validation": score} for n, score in enumerate(scores)]
            record = {
                "seed": seed, "majority": 20.0, "untuned": None if seed or start == "scratch" else 40.0,
                "test": 70.0 + seed, "evaluations": evaluations,
            }  # fmt: skip
            (tmp_path / cell.file).write_text(json.dumps(record))
    assert table(tmp_path).splitlines()[2:] == [
        "| smollm2-to-gemma | trec | scratch | 20.0 |  | 70.5 ± 0.7 | 2 | 40 (2 of 2) |  |",
        "| smollm2-to-gemma | trec | linear | 20.0 | 40.0 | 70.5 ± 0.7 | 2 | 10 (2 of 2) | +15.0 |",
    ]


def test_the_page_has_the_table_of_the_cells() -> None:
    page = (CELLS.parents[1] / "experiments.md").read_text()
    assert page == filled(page, "convert", f"\n{table(CELLS)}\n")
