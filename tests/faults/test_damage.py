"""Flipped bits and cut files: every one is noticed when it is read. Prompts, checkpoints, cells, kept parts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from spoton.errors import PromptError, SpotonError
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.sealing import sealed_json
from spoton.study.run.store import Store
from spoton.tasks import Task
from spoton.tuning import Recipe
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.full_model.tune_to_folder import tune_model_to_folder
from spoton.tuning.sealed_tensors import read_sealed
from spoton.tuning.tune_to_file import tune_to_file

RECIPE = Recipe(length=4, steps=8, key_step=2, evaluate_every=2, batch_size=4)
FLIPS, CUTS = 50, 15


def damaged(data: bytes, seed: int) -> list[bytes]:
    """Copies with one flipped bit each, and copies that are cut short."""
    chance = random.Random(seed)
    copies = []
    for _ in range(FLIPS):
        copy = bytearray(data)
        copy[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        copies.append(bytes(copy))
    return copies + [data[: chance.randrange(len(data))] for _ in range(CUTS)] + [b""]


def each_is_refused(path: Path, read: Callable[[], object], *errors: type[Exception], seed: int = 0) -> int:
    data = path.read_bytes()
    read()  # as it is, it is read
    for copy in damaged(data, seed):
        path.write_bytes(copy)
        with pytest.raises(errors):
            read()
    path.write_bytes(data)
    return FLIPS + CUTS + 1


def test_prompts(library: PromptLibrary) -> None:
    path = library.path("news")
    assert each_is_refused(path, lambda: SoftPrompt.load(path), PromptError) >= 60


def test_a_checkpoint_of_a_prompt(model: FrozenModel, task: Task, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    stop_at_step(5, lambda on_event: tune_to_file(model, task, RECIPE, out, on_event=on_event))
    path = out.with_suffix(".checkpoint")
    each_is_refused(path, lambda: read_sealed(path), ValueError, seed=1)
    data = path.read_bytes()
    for copy in damaged(data, 2)[:5]:  # and what a user meets
        path.write_bytes(copy)
        with pytest.raises(SpotonError, match="not a usable checkpoint"):
            tune_to_file(model, task, RECIPE, out, resume=True)


def test_a_checkpoint_of_a_model(model: FrozenModel, task: Task, tmp_path: Path) -> None:
    out, recipe = tmp_path / "m", ModelRecipe(steps=6, evaluate_every=1, batch_size=2)
    stop_at_step(3, lambda on_event: tune_model_to_folder(model, task, recipe, out, on_event=on_event))
    chance = random.Random(3)
    for path in sorted((out / "checkpoint").iterdir()):
        data = path.read_bytes()
        for _ in range(8):
            copy = bytearray(data)
            copy[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(copy)
            with pytest.raises(SpotonError, match="not a usable checkpoint"):
                tune_model_to_folder(model, task, recipe, out, resume=True)
        path.write_bytes(data)


def test_a_cell_of_a_study(tmp_path: Path) -> None:
    store = Store(tmp_path)
    document = {
        "name": "scratch.a.0.f00d", "kind": "scratch", "task": "a", "scores": {"test": 71.25}, "seconds": 3.5,
    }  # fmt: skip
    path = tmp_path / "cells" / "scratch.a.0.f00d.json"
    store.write("cells/scratch.a.0.f00d.json", sealed_json(document))
    whole = path.read_bytes()
    assert store.result("scratch.a.0.f00d") is not None
    for copy in damaged(whole, 4):
        path.write_bytes(copy)
        found = store.result("scratch.a.0.f00d")
        # A bit may flip in the word "checksum" or in white space, and the document still say the same.
        assert found is None or document.items() <= found.items()


def stop_at_step(step: int, run: Callable[[Callable[[Progress], None]], object]) -> None:
    def stop(event: Progress) -> None:
        if event.done >= step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stop)
