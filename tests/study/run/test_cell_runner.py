"""The cell runner: what it reads, what it refuses, and that a damaged result is made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spoton.errors import Interrupted, SpotonError, StudyError
from spoton.evaluation.baseline import classical
from spoton.events import Progress, silent
from spoton.prompts import Card, SoftPrompt
from spoton.study.analysis.advice import caveats
from spoton.study.analysis.analyse import analyse
from spoton.study.plan.cells import Combination, ModelTuning, ZeroShot
from spoton.study.results.collect import collect
from spoton.study.run import cell_runner, model_cells
from spoton.study.run.cell_runner import CellRunner, Placement
from spoton.study.run.executors import InProcess
from spoton.study.run.scheduler import read_plan, run_cells, status_of
from spoton.tasks.majority import majority_scores
from tests.study.small import MakeStudy


def changed(folder: Path, **changes: Any) -> Path:
    """The study with other options of its target."""
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["targets"]["tasks"][0]["options"] |= changes
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"on_message": "x"}, {"spec": "x"}, {"path": "x"}, {"own": []}, {"name": "x"}, {"input": 5}, {"labels": 3},
        {"labels": {"yes": 1}}, {"template": ["{{ text }}"]}, {"metrics": 7}, {"encoding": 1.5}, {"seed": "x"},
        {"validation": {"a": 1}}, {"family": ["x"]}, {"no_such": 1}, {"delimiter": 5}, {"test": 10**30},
    ],
)  # fmt: skip
def test_options_of_the_wrong_kind_crash_nowhere(make_study: MakeStudy, options: dict[str, Any]) -> None:
    try:
        CellRunner(changed(make_study(), **options)).task("target", "songs.csv")
    except SpotonError as error:
        assert str(error)
    else:  # what readers make sense of is fine
        assert set(options) <= {"family", "seed", "metrics", "encoding", "name"}


def test_all_that_is_missing_is_told_at_once(make_study: MakeStudy) -> None:
    folder = make_study(model="no/such-model-folder/anywhere")
    for name in ("films", "songs"):
        (folder / f"{name}.csv").unlink()
    told = CellRunner(folder).missing()
    assert len(told) == 3 and "songs.csv" in " ".join(told) and "films.csv" in " ".join(told)


def test_a_start_that_is_not_there_is_missing(make_study: MakeStudy) -> None:
    folder = make_study()
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["targets"]["recipe"] = document["targets"]["recipe"] | {"init": "start.safetensors"}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    (told,) = CellRunner(folder).missing()
    assert "songs.csv" in told and "'start.safetensors'" in told and "no such file" in told
    model = CellRunner(folder).model
    card = Card(name="start", task="any", model=model.name, model_fingerprint=model.fingerprint)
    SoftPrompt(torch.zeros(4, model.dim), card).save(folder / "start.safetensors")
    assert CellRunner(folder).missing() == ()


def test_members_of_a_mixture_are_files_of_the_study_too(make_study: MakeStudy) -> None:
    folder = make_study()
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["sources"]["tasks"] = ["mixture:films.csv, songs.csv"]
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    mixture = CellRunner(folder).task("source", "mixture:films.csv, songs.csv")
    assert mixture.name == "mixture-films+songs" and len(mixture.train) == 24


def test_tasks_can_be_given_instead_of_read(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    reader = CellRunner(folder)
    rows = reader.every_task()
    for file in folder.glob("*.csv"):
        file.unlink()
    given = CellRunner(folder, tasks=lambda role, name: rows[role, name])
    assert [cell.name for cell in given.cells()] == [cell.name for cell in reader.cells()]


def test_a_device_that_is_not_there_is_told(make_study: MakeStudy) -> None:
    with pytest.raises(SpotonError, match="cuda:77"):
        _ = CellRunner(make_study(), placement=Placement(device="cuda:77")).model


def test_what_has_left_the_study_file_is_left_out_of_its_results(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0], retrieval={"methods": ["weighted-average"], "k": [2]}, controls=["noise"])
    whole = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "poems.csv").write_text((folder / "songs.csv").read_text().replace("sounds", "reads"))
    (song,) = whole["targets"]["tasks"]
    whole["targets"]["tasks"].append(song | {"task": "poems.csv"})
    (folder / "study.yaml").write_text(yaml.safe_dump(whole))
    cell_runner = CellRunner(folder)
    assert not run_cells(cell_runner.store, cell_runner.cells(), InProcess(cell_runner, silent)).left
    before = collect(folder)
    assert before.sources == ("films.csv", "books.csv") and not before.metadata["notes"]

    fewer = whole | {"sources": whole["sources"] | {"tasks": whole["sources"]["tasks"][1:]}, "retrieval": {}}
    (folder / "study.yaml").write_text(yaml.safe_dump(fewer))
    after = collect(folder)
    assert after.sources == ("books.csv",) and set(after.test) == {
        score for score in before.test if score.source != "films.csv"
    }
    assert not after.extra  # noise was as large as the first source's prompt, and the average had both
    # The source, and for each of two targets a transfer, an average and noise.
    (note,) = after.metadata["notes"]
    assert note.startswith("7 finished cells are left out") and "no longer names: source films.csv." in note
    assert note in caveats(analyse(after))

    (folder / "study.yaml").write_text(
        yaml.safe_dump(whole | {"targets": whole["targets"] | {"tasks": [song]}})
    )
    (note,) = collect(folder).metadata["notes"]
    assert "no longer names: target poems.csv." in note
    assert {score.target for score in collect(folder).test} == {"songs.csv"}
    (folder / "study.yaml").write_text(yaml.safe_dump(whole))
    assert collect(folder).test == before.test


COMBINED = ["weighted-average", "task-vectors", "learned-mix", "multiplicative"]


def test_methods_combine_the_nearest_sources(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0], retrieval={"methods": COMBINED, "k": [1, 2]})
    cell_runner = CellRunner(folder)
    cells = cell_runner.cells()
    combined = [cell for cell in cells if isinstance(cell, Combination)]
    # Of one prompt only task vectors are more than a transfer.
    assert [(cell.kind, cell.k) for cell in combined] == [
        ("weighted-average", 2), ("task-vectors", 1), ("task-vectors", 2), ("learned-mix", 2), ("multiplicative", 2),
    ]  # fmt: skip
    status = run_cells(cell_runner.store, cells, InProcess(cell_runner, silent))
    assert not status.left
    ways = {}
    for cell in combined:
        result = cell_runner.store.result(cell.name)
        assert result is not None and len(result["parents"]) == cell.k
        assert {parent["name"] for parent in result["parents"]} <= set(cell.source_cells)
        assert result["looks"][0]["step"] == 0  # the start itself is scored
        ways[cell.kind] = str(result["looks"])
    # All of these sources are best where they started, so vectors add nothing; the other three differ in what is tuned.
    assert ways.pop("task-vectors") == ways["weighted-average"]
    assert len(set(ways.values())) == len(ways) == 3
    results = collect(folder)
    assert {f"{cell.kind}:average_tokens@{cell.k}" for cell in combined} == set(results.extra)
    rows = {(row.method, row.k) for row in analyse(results).rows if row.targets}
    assert rows >= {(cell.kind, cell.k) for cell in combined}


def test_a_learned_mix_resumes_as_itself(make_study: MakeStudy) -> None:
    """What is tuned in place of the prompt is part of a run, also of one that was stopped in between."""
    runner = CellRunner(make_study(seeds=[0], retrieval={"methods": ["learned-mix"], "k": [2]}))
    cells = runner.cells()
    (mix,) = [cell for cell in cells if isinstance(cell, Combination)]
    run_cells(runner.store, [cell for cell in cells if cell is not mix], InProcess(runner, silent))

    def stop(event: Progress) -> None:
        if event.phase == mix.words and event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        runner.carry_out([mix], stop)
    checkpoint = runner.store.checkpoint(mix.name)
    assert checkpoint is not None and checkpoint.exists()
    runner.carry_out([mix])
    stopped = runner.store.result(mix.name)
    runner.store.remove(f"cells/{mix.name}.json")
    runner.carry_out([mix])
    whole = runner.store.result(mix.name)
    assert stopped is not None and whole is not None
    assert stopped["prompt_hash"] == whole["prompt_hash"] and stopped["looks"] == whole["looks"]


def test_what_needs_no_prompt_is_scored_with_the_bare_model(make_study: MakeStudy) -> None:
    runner = CellRunner(make_study(seeds=[0]))
    zero_shot = next(cell for cell in runner.cells() if isinstance(cell, ZeroShot))
    runner.carry_out([zero_shot])
    result = runner.store.result(zero_shot.name)
    assert result is not None
    task = runner.task("target", zero_shot.task)
    assert result["majority"] == majority_scores(task)
    assert result["classical"] == {split: classical(task).score(split) for split in ("validation", "test")}
    assert result["classical"]["test"] > result["majority"]["test"]  # words decide these labels


def test_labels_are_scored_alike_with_and_without_a_prompt(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(seeds=[0], model_tuning={"recipe": {"label_score": "mean"}})
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["targets"]["recipe"]["label_score"] = "mean"
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    runner, asked = CellRunner(folder), []
    real = cell_runner.evaluate

    def watched(*given: Any, **options: Any) -> Any:
        asked.append(options["label_score"])
        return real(*given, **options)

    for module in (cell_runner, model_cells):
        monkeypatch.setattr(module, "evaluate", watched)
    runner.carry_out([cell for cell in runner.cells() if isinstance(cell, ZeroShot | ModelTuning)])
    assert asked == ["mean"] * 3


DAMAGES = {
    "empty": b"",
    "cut off": b'{"name": "x", "ki',
    "zeros": b"\0" * 64,
    "another's": b'{"name": "other"}',
}


def test_damaged_results_do_not_count_and_run_again(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0])
    cell_runner = CellRunner(folder)
    cells = cell_runner.cells()
    run_cells(cell_runner.store, cells, InProcess(cell_runner, silent))
    before = {file: json.loads(file.read_text()) for file in (folder / "cells").iterdir()}
    damaged = list(before)[: len(DAMAGES)]
    for file, data in zip(damaged, DAMAGES.values(), strict=True):
        file.write_bytes(data)
    status = status_of(cell_runner.store, read_plan(cell_runner.store))
    assert set(status.damaged) == {file.stem for file in damaged}
    assert len(status.finished) == len(cells) - len(damaged)
    assert set(status.to_json()["damaged"]) == set(status.damaged)
    again = run_cells(cell_runner.store, cells, InProcess(cell_runner, silent))
    assert not again.left and not again.damaged
    for file, document in before.items():
        after = json.loads(file.read_text())
        unlike = {"seconds": 0, "threads": 0, "checksum": ""}  # the checksum covers the other two
        assert after | unlike == document | unlike


def test_a_place_without_a_study_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is not a study"):
        CellRunner(tmp_path)


def test_a_prompt_to_start_from_is_found_next_to_the_study_file(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(seeds=[0])
    document = yaml.safe_load((folder / "study.yaml").read_text())
    document["targets"]["recipe"]["init"] = "start.safetensors"
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    model = CellRunner(folder).model
    card = Card(name="start", task="t", model=model.name, model_fingerprint=model.fingerprint)
    prompt = SoftPrompt(torch.ones(4, model.dim), card)
    prompt.save(folder / "start.safetensors")
    monkeypatch.chdir(folder)
    named_inside = [cell.name for cell in CellRunner(folder).cells()]
    monkeypatch.chdir(tmp_path)
    runner = CellRunner(folder)
    assert [cell.name for cell in runner.cells()] == named_inside  # where the command runs decides nothing
    scratch = next(cell for cell in runner.cells() if cell.kind == "scratch")
    runner.carry_out([scratch])
    (result,) = [json.loads(file.read_text()) for file in (folder / "cells").glob("scratch*.json")]
    assert [parent["hash"] for parent in result["parents"]] == [prompt.content_hash()]
    assert result["recipe"]["init"] == "start.safetensors"
