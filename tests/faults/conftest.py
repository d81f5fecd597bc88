"""Processes to be killed: forked from this one, where everything is imported and a tiny model is loaded.

To start Python for every kill would take seconds each; a fork takes milliseconds, and dies as really.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from spoton.cli.start import main
from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.tasks import Task
from spoton.tuning import Recipe
from spoton.tuning.tune_to_file import tune_to_file
from tests.study.small import make_study as make_study
from tests.study.small import tiny_model as tiny_model
from tests.tiny import WIDTH, draw, tiny, toy_task

Work = Callable[[], object]


class Child:
    """A forked process that carries out some work."""

    def __init__(self, work: Work) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                torch.set_num_threads(1)  # the threads that this process has do not exist in a fork of it
                work()
                code = 0
            except KeyboardInterrupt:
                code = 130
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def kill_after(self, seconds: float, number: int = signal.SIGKILL) -> int:
        """Sends a signal after some time; the exit status as the shell has it, 0 if the work was done before."""
        time.sleep(seconds)
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        """The exit status once it has ended."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture(scope="session")
def model() -> FrozenModel:
    """A tiny model, after a first run: what is imported late (drawing) is there before the first fork."""
    tuned = tiny("llama")
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(length=2, steps=1, key_step=1, evaluate_every=1, batch_size=1)
        tune_to_file(tuned, toy_task(), recipe, Path(folder) / "p.safetensors")
    return tuned


@pytest.fixture(scope="session")
def task() -> Task:
    """A toy task."""
    return toy_task()


@pytest.fixture
def library(model: FrozenModel, tmp_path: Path) -> PromptLibrary:
    """A library with two prompts of the tiny model."""
    filled = PromptLibrary(tmp_path / "library")
    for seed, name in enumerate(("news", "quiz")):
        card = Card(name=name, task=f"{name}_task", model=model.name, model_fingerprint=model.fingerprint)
        filled.add(SoftPrompt(draw(4, WIDTH, seed=seed), card, draw(4, WIDTH, seed=seed + 9)))
    return filled


@dataclass(frozen=True)
class Ended:
    """What a command did in a process of its own."""

    code: int
    stdout: str
    stderr: str


def spoton(*args: object, before: Work = lambda: None) -> Ended:
    """Carries out a command line in a forked process, as the installed command does.

    Args:
        args: The command line.
        before: What the process does to itself first, such as giving up its rights.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:

        def work() -> None:
            for number, file in ((1, stdout), (2, stderr)):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            sys.argv = ["spoton", *map(str, args)]
            try:
                before()
                main()
            finally:
                sys.stdout.flush()

        code = Child(work).wait()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return Ended(code, *texts)


def litter(folder: Path) -> list[Path]:
    """Temporary files and locks that are there."""
    return [path for path in folder.rglob(".spoton-*")]
