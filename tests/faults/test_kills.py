"""kill -9 at random moments: what is there is whole, what resumes ends as if nothing had happened, no litter stays."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from spoton.locks import sweep
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.tasks import Task
from spoton.transfer import adapt
from spoton.tuning import Recipe
from spoton.tuning.tune_to_file import tune_to_file
from tests.faults.conftest import Child, litter

pytestmark = pytest.mark.campaign

RECIPE = Recipe(length=4, steps=6, key_step=2, evaluate_every=1, batch_size=2)


def timed(work: object) -> float:
    began = time.monotonic()
    assert Child(work).wait() == 0  # type: ignore[arg-type]
    return time.monotonic() - began


def test_a_killed_run_resumes_to_the_very_prompt(model: FrozenModel, task: Task, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    takes = timed(lambda: tune_to_file(model, task, RECIPE, whole))
    wanted = SoftPrompt.load(whole).content_hash()
    moments, killed = random.Random(0), 0
    for trial in range(10):
        out = tmp_path / str(trial) / "p.safetensors"
        for _ in range(2):
            run = Child(lambda out=out: tune_to_file(model, task, RECIPE, out, resume=True))
            killed += run.kill_after(moments.uniform(0, takes)) == -signal.SIGKILL
            if out.exists():
                SoftPrompt.load(out)
        if not out.with_suffix(".json").exists():
            assert Child(lambda out=out: tune_to_file(model, task, RECIPE, out, resume=True)).wait() == 0
            assert not out.with_suffix(".checkpoint").exists()
        assert SoftPrompt.load(out).content_hash() == wanted
        sweep(out.parent)  # as the next write does: the last kill may have come after the record
        assert litter(out.parent) == []
    assert killed >= 10


def test_a_killed_adapt_resumes_to_the_very_prompt(
    model: FrozenModel, task: Task, library: PromptLibrary, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.safetensors"
    takes = timed(lambda: adapt(model, task, [library], RECIPE, out=whole))
    wanted = SoftPrompt.load(whole).content_hash()
    moments, killed = random.Random(1), 0
    for trial in range(5):
        out = tmp_path / str(trial) / "p.safetensors"
        for _ in range(2):
            run = Child(lambda out=out: adapt(model, task, [library], RECIPE, out=out))
            killed += run.kill_after(moments.uniform(0, takes)) == -signal.SIGKILL
        if not out.with_suffix(".json").exists():
            assert (
                Child(lambda out=out: adapt(model, task, [library], RECIPE, out=out, overwrite=True)).wait()
                == 0
            )
            assert not out.with_suffix(".work").exists()
        assert SoftPrompt.load(out).content_hash() == wanted
        sweep(out.parent)
        assert litter(out.parent) == []
    assert killed >= 5


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

    writer, until = Child(alternate), time.monotonic() + 4
    reads = 0
    while time.monotonic() < until:
        assert library.get("news").content_hash() in known
        assert {entry.name for entry in library.list()} == {"news", "quiz"} and library.damaged == {}
        reads += 1
    assert writer.kill_after(0) == -signal.SIGKILL and reads > 20


def test_a_prompt_that_comes_and_goes_is_never_damaged(library: PromptLibrary) -> None:
    news = library.get("news")

    def come_and_go() -> None:
        while True:
            library.remove("news")
            library.add(news)

    writer, until = Child(come_and_go), time.monotonic() + 3
    while time.monotonic() < until:
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
