"""kill -9 at random moments: what is there is whole, what resumes ends as if nothing had happened, no litter stays.

Every test counts the kills that met a living process: at least 14 of `tune`, 7 of `adapt`, 8 of `predict`, 80 of a
library's writer and 8 of a study in this file; workers of Ray in `test_ray_kills.py`.
"""

from __future__ import annotations

import importlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from spoton.evaluation import predict
from spoton.events import silent
from spoton.files import atomic_write
from spoton.locks import sweep
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.study.run.cell_runner import CellRunner
from spoton.study.run.executors import InProcess
from spoton.study.run.scheduler import run_cells
from spoton.study.run.store import Store
from spoton.tasks import Task
from spoton.transfer import adapt
from spoton.tuning import Recipe
from spoton.tuning.tune_to_file import tune_to_file
from tests.faults.conftest import Child, litter
from tests.study.small import MakeStudy

RECIPE = Recipe(length=4, steps=6, key_step=2, evaluate_every=1, batch_size=2)
# Reads of a library while another process writes to it.
READS = 300


def kill_often(run: Callable[[Path], object], folder: Path, seed: int, *, kills: int) -> None:
    """Kills runs at random moments, two with one output; a third must then end as an uninterrupted one.

    Args:
        run: Writes an output, or goes on where a killed run of it stopped.
        folder: Where.
        seed: Of the moments.
        kills: How many have to meet a living process.
    """
    whole = folder / "whole.safetensors"
    began = time.monotonic()
    assert Child(lambda: run(whole)).wait() == 0
    takes = time.monotonic() - began
    wanted = SoftPrompt.load(whole).content_hash()
    moments, killed, trial = random.Random(seed), 0, 0
    while killed < kills:
        out, trial = folder / str(trial) / "p.safetensors", trial + 1
        for _ in range(2):
            child = Child(lambda out=out: run(out))  # type: ignore[misc]
            killed += child.kill_after(moments.uniform(0, takes)) == -signal.SIGKILL
            if out.exists():
                SoftPrompt.load(out)
        if not out.with_suffix(".json").exists():
            assert Child(lambda out=out: run(out)).wait() == 0  # type: ignore[misc]
            assert not any(out.with_suffix(suffix).exists() for suffix in (".checkpoint", ".work"))
        assert SoftPrompt.load(out).content_hash() == wanted
        sweep(out.parent)  # as the next write does: the last kill may have come after the record
        assert litter(out.parent) == []


def test_a_killed_run_resumes_to_the_very_prompt(model: FrozenModel, task: Task, tmp_path: Path) -> None:
    kill_often(lambda out: tune_to_file(model, task, RECIPE, out, resume=True), tmp_path, 0, kills=14)


def test_a_killed_adapt_resumes_to_the_very_prompt(
    model: FrozenModel, task: Task, library: PromptLibrary, tmp_path: Path
) -> None:
    kill_often(lambda out: adapt(model, task, [library], RECIPE, out=out), tmp_path, 1, kills=7)


def test_a_killed_predict_goes_on_to_the_very_answers(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("spoton.evaluation.predict"), "PART", 4)
    prompt, texts = library.get(library.list()[0].name), [f"Text {i}" for i in range(80)]
    wanted = [asdict(one) for one in predict(model, prompt, texts)]

    def run(folder: Path) -> None:
        answers = [asdict(one) for one in predict(model, prompt, texts, kept=folder / "kept")]
        atomic_write(folder / "answers.json", json.dumps(answers).encode())

    began = time.monotonic()
    assert Child(lambda: run(tmp_path)).wait() == 0
    takes, moments, killed, trial = time.monotonic() - began, random.Random(4), 0, 0
    while killed < 8:
        folder = tmp_path / str(trial)
        folder.mkdir()
        for _ in range(3):
            killed += (
                Child(lambda at=folder: run(at)).kill_after(moments.uniform(0, takes)) == -signal.SIGKILL
            )  # type: ignore[misc]
        assert Child(lambda at=folder: run(at)).wait() == 0  # type: ignore[misc]
        assert json.loads((folder / "answers.json").read_bytes()) == wanted
        trial += 1


def test_a_killed_study_goes_on_to_the_very_results(make_study: MakeStudy, model: FrozenModel) -> None:
    whole, broken = make_study("whole", seeds=[0]), make_study("broken", seeds=[0])

    def run(folder: Path) -> None:
        runner = CellRunner(folder)
        run_cells(runner.store, runner.cells(), InProcess(runner, silent))

    began = time.monotonic()
    assert Child(lambda: run(whole)).wait() == 0
    takes, moments, killed = time.monotonic() - began, random.Random(3), 0
    while killed < 8:
        shutil.rmtree(broken / "cells", ignore_errors=True)
        for _ in range(4):
            was_killed = Child(lambda: run(broken)).kill_after(moments.uniform(0, takes)) == -signal.SIGKILL
            killed += was_killed
            results(broken)  # every result that is there is whole
            if not was_killed:
                break
        assert Child(lambda: run(broken)).wait() == 0
        assert results(broken) == results(whole)
        assert litter(broken) == [] and not list((broken / "work").glob("*.checkpoint"))


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What every cell found, without what differs from run to run."""
    unlike = ("seconds", "threads")
    found = {path.stem: Store(folder).result(path.stem) for path in (folder / "cells").glob("*.json")}
    assert None not in found.values()
    return {name: {k: v for k, v in cell.items() if k not in unlike} for name, cell in found.items() if cell}


def test_a_killed_writer_leaves_a_library_whole(library: PromptLibrary) -> None:
    prompt, moments = library.get("news"), random.Random(2)

    def rewrite() -> None:
        while True:
            library.add(prompt, replace=True)

    for _ in range(80):
        assert Child(rewrite).kill_after(moments.uniform(0, 0.03)) == -signal.SIGKILL
        assert library.verify().damaged == {} and library.get("news").content_hash() == prompt.content_hash()
    library.add(prompt, replace=True)
    assert litter(library.folder) == []


def test_readers_and_writers_at_once_never_see_half(library: PromptLibrary) -> None:
    """The race of `library add --replace` with a reader: every read gives one of the two prompts."""
    news, quiz = library.get("news"), library.get("quiz")
    known = {news.content_hash(), quiz.content_hash()}

    def alternate() -> None:
        while True:
            library.add(quiz, name="news", replace=True)
            library.add(news, name="news", replace=True)

    writer = Child(alternate)
    for _ in range(READS):
        assert library.get("news").content_hash() in known
        assert {entry.name for entry in library.list()} == {"news", "quiz"} and library.damaged == {}
    assert writer.kill_after(0) == -signal.SIGKILL


def test_a_prompt_that_comes_and_goes_is_never_damaged(library: PromptLibrary) -> None:
    news = library.get("news")

    def come_and_go() -> None:
        while True:
            library.remove("news")
            library.add(news)

    writer = Child(come_and_go)
    for _ in range(READS):
        assert library.verify().damaged == {}
    assert writer.kill_after(0) == -signal.SIGKILL


@pytest.mark.parametrize("what", ["tune", "adapt"])
def test_two_runs_on_one_output(
    what: str, model: FrozenModel, task: Task, library: PromptLibrary, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"

    def run() -> None:
        if what == "tune":
            tune_to_file(model, task, RECIPE, out)
        else:
            adapt(model, task, [library], RECIPE, out=out)

    codes = sorted(child.wait() for child in [Child(run) for _ in range(4)])
    assert codes == [0, 1, 1, 1]
    assert out.with_suffix(".json").exists() and litter(tmp_path) == []
