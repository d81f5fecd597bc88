"""Prompts of a library as sources of a study: copied, transferred from, and refused where they are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from spoton.errors import LibraryError, PromptError, StudyError
from spoton.events import silent
from spoton.models.loading import load_model
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.prompts.ensemble import ensemble_of
from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.analysis_json import analysis_json
from spoton.study.plan.cells import LibrarySource, Noise, Transfer
from spoton.study.plan.cost import Predictor
from spoton.study.results.collect import collect
from spoton.study.run.cell_runner import CellRunner
from spoton.study.run.executors import InProcess
from spoton.study.run.scheduler import run_cells
from spoton.study.run.starts import Starts
from tests.study.small import MakeStudy


def prompt(folder: Path, name: str, seed: int, **changes: Any) -> SoftPrompt:
    model = load_model(str(folder), dtype="float32")
    draw = torch.Generator().manual_seed(seed)
    value, key = torch.randn(2, 4, model.dim, generator=draw) / 10
    facts: dict[str, Any] = {
        "name": name, "task": name, "family": "sentiment", "model": model.name,
        "model_fingerprint": model.fingerprint, "labels": ["yes", "no"], "metric": "accuracy", "evaluation": "rank",
        "scores": {"test": {"accuracy": 90.0}}, "majority": {"test": 50.0}, "splits": {"test": 100}, "seed": 7,
    }  # fmt: skip
    return SoftPrompt(value, Card(**facts | changes), key)


@pytest.fixture
def library(tmp_path: Path, tiny_model: Path) -> PromptLibrary:
    library = PromptLibrary(tmp_path / "prompts")
    library.add(prompt(tiny_model, "plays", 1))
    library.add(prompt(tiny_model, "poems", 2, scores={"test": {"accuracy": 51.0}}))
    return library


def sources(prompts: PromptLibrary, /, **changes: Any) -> dict[str, Any]:
    return {"sources": {"library": str(prompts.folder)} | changes}


def test_prompts_of_a_library_are_sources(make_study: MakeStudy, library: PromptLibrary) -> None:
    folder = make_study(**sources(library), controls=["noise"])
    runner = CellRunner(folder)
    cells = runner.cells()
    given = [cell for cell in cells if isinstance(cell, LibrarySource)]
    transfers = [cell for cell in cells if isinstance(cell, Transfer)]
    # One cell a prompt whatever the seeds; each of the two seeds starts from it.
    assert [cell.task for cell in given] == ["plays", "poems"]
    assert [(cell.source, cell.seed, cell.from_cell) for cell in transfers] == [
        (cell.task, seed, cell.name) for seed in (0, 1) for cell in given
    ]
    assert Predictor(runner.model, runner.task, cells).seconds(given[0]) == 0
    status = run_cells(runner.store, cells, InProcess(runner, silent))
    assert not status.left
    for cell in given:
        kept, original = runner.store.prompt(cell.name), library.get(cell.task)
        assert torch.equal(kept.value, original.value) and kept.card == original.card
    library.remove("plays")  # the study is whole without it
    results = collect(folder)
    assert results.sources == ("plays", "poems")
    assert results.learned_sources == {"plays": True, "poems": False}
    assert set(results.source_keys) == {("plays", 7), ("poems", 7)}
    assert {score.source for score in results.test} == {None, "plays", "poems"}
    found = analyse(results)
    row = found.row("noise")
    assert row is not None and row.targets == 1
    assert np.isfinite(found.choices.similarity["average_tokens"]).all()


def test_noise_is_as_large_as_the_first_source(make_study: MakeStudy, library: PromptLibrary) -> None:
    runner = CellRunner(make_study(seeds=[0], **sources(library), controls=["noise"]))
    cells = runner.cells()
    (noise,) = [cell for cell in cells if isinstance(cell, Noise)]
    assert noise.needs == (cells[0].name,)
    run_cells(runner.store, cells, InProcess(runner, silent))
    result = runner.store.result(noise.name)
    assert result is not None and result["looks"][0]["step"] == 0
    first = library.get("plays").value.pow(2).mean().sqrt()
    start = Starts(runner.model, runner.store, runner.task, []).of(noise, silent)
    assert start.value is not None and start.value.shape == (4, runner.model.dim)
    assert start.value.pow(2).mean().sqrt() == pytest.approx(float(first), rel=0.25)
    assert not start.parents


def test_a_prompt_is_not_its_own_source(
    make_study: MakeStudy, library: PromptLibrary, tiny_model: Path
) -> None:
    library.add(prompt(tiny_model, "other-songs", 3, task="songs.csv"))
    runner = CellRunner(make_study(seeds=[0], **sources(library)))
    assert {cell.source for cell in runner.cells() if isinstance(cell, Transfer)} == {"plays", "poems"}


def test_a_prompt_of_the_target_s_own_file_is_no_source(
    make_study: MakeStudy, library: PromptLibrary, tiny_model: Path
) -> None:
    """`spoton tune songs.csv` calls its task `songs`, and the study calls its target `songs.csv`."""
    folder = make_study(seeds=[0], **sources(library))
    songs = CellRunner(folder).task("target", "songs.csv")
    assert songs.name == "songs"
    library.add(prompt(tiny_model, "mine", 3, task=songs.name, source=songs.source))
    # Another file of that name holds other rows.
    library.add(prompt(tiny_model, "theirs", 4, task=songs.name, source="file:songs.csv@0123456789ab"))
    runner = CellRunner(folder)
    cells = runner.cells()
    assert [cell.source for cell in cells if isinstance(cell, Transfer)] == ["plays", "poems", "theirs"]
    run_cells(runner.store, cells, InProcess(runner, silent))
    found = analysis_json(analyse(collect(folder)))["study"]["cells"]
    assert found["missing"] == [] and found["missing_pairs"] == []
    assert found["left_out"] == [["mine", "songs.csv", "the source was tuned on rows or texts of the target"]]


def test_a_task_is_not_its_own_source_under_another_path(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["sources"]["tasks"].append(document["targets"]["tasks"][0] | {"task": "./songs.csv"})
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    tried = {cell.source for cell in CellRunner(folder).cells() if isinstance(cell, Transfer)}
    assert tried == {"films.csv", "books.csv"}


def test_another_prompt_renames_what_starts_from_it(
    make_study: MakeStudy, library: PromptLibrary, tiny_model: Path
) -> None:
    folder = make_study(seeds=[0], **sources(library))
    before = {cell.name for cell in CellRunner(folder).cells()}
    runner = CellRunner(folder)
    old = [cell for cell in runner.cells() if isinstance(cell, LibrarySource)]
    library.add(prompt(tiny_model, "plays", 9), replace=True)
    after = CellRunner(folder).cells()
    assert {cell.words for cell in after if cell.name not in before} == {
        "source plays, of the library", "plays -> songs.csv, seed 0",
    }  # fmt: skip
    with pytest.raises(StudyError, match="is not the prompt that the study was planned"):
        runner.carry_out(old[:1])


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"prompts": ["plas"]}, LibraryError, "plas"),
        ({"library": "no-such-folder"}, LibraryError, "no such folder"),
        ({"prompts": ["strange"]}, PromptError, "works with no other"),
        ({"prompts": ["both"]}, StudyError, "ensemble"),
    ],
)
def test_what_is_no_source_is_refused(
    make_study: MakeStudy,
    library: PromptLibrary,
    tiny_model: Path,
    changes: dict[str, Any],
    error: type[Exception],
    told: str,
) -> None:
    library.add(prompt(tiny_model, "strange", 4, model="other-model", model_fingerprint="2-beef"))
    library.add(ensemble_of([library.get("plays"), library.get("plays")]), name="both")
    runner = CellRunner(make_study(seeds=[0], **sources(library, **changes)))
    with pytest.raises(error, match=told):
        runner.cells()
    assert any(told in message for message in runner.missing())


def test_all_prompts_means_single_ones_of_the_model(
    make_study: MakeStudy, library: PromptLibrary, tiny_model: Path
) -> None:
    library.add(prompt(tiny_model, "strange", 4, model="other-model", model_fingerprint="2-beef"))
    library.add(ensemble_of([library.get("plays"), library.get("plays")]), name="both")
    assert set(CellRunner(make_study(seeds=[0], **sources(library))).prompts()) == {"plays", "poems"}
    for name in ("plays", "poems"):
        library.remove(name)
    with pytest.raises(LibraryError, match="none of its prompts can be"):
        CellRunner(make_study("second", seeds=[0], **sources(library))).prompts()


def test_the_study_file_says_what_goes_together(make_study: MakeStudy, library: PromptLibrary) -> None:
    for changes, told in (
        ({"sources": {"prompts": ["plays"]}}, "library has to say which"),
        ({"sources": {"library": "x", "prompts": ["a", "a"]}}, "is listed twice"),
        (
            sources(library) | {"retrieval": {"methods": ["multi-task-mixture"]}},
            "prompts of a library have none",
        ),
        ({"sources": {}, "controls": ["noise"]}, "the study has no sources"),
    ):
        folder = make_study(f"s{abs(hash(told))}", **changes)
        assert yaml.safe_load((folder / "study.yaml").read_text())
        with pytest.raises(StudyError, match=told):
            CellRunner(folder)
