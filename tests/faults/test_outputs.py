"""Ctrl-C over what is finished: it stays. What is unfinished gives way to what is better."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoton.errors import Interrupted, SpotonError
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.tasks import Task
from spoton.transfer import adapt
from spoton.tuning import Recipe
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.full_model.tune_to_folder import tune_model_to_folder
from spoton.tuning.tune_to_file import tune_to_file

RECIPE = Recipe(length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4)
LONG = RECIPE.changed(steps=400, evaluate_every=200, seed=1)


def interrupt(event: Progress) -> None:
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_finished_prompt_is_refused_and_survives_an_interrupt(
    model: FrozenModel, task: Task, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    tune_to_file(model, task, RECIPE, out)
    before = contents(tmp_path)
    for resume in (False, True):
        with pytest.raises(SpotonError, match=r"exists and is finished.*--overwrite"):
            tune_to_file(model, task, LONG, out, resume=resume)
    with pytest.raises(Interrupted, match=r"best prompt so far is at .*p\.interrupted\.safetensors"):
        tune_to_file(model, task, LONG, out, overwrite=True, on_event=interrupt)
    after = contents(tmp_path)
    assert before.items() <= after.items()
    tune_to_file(model, task, RECIPE.changed(seed=2), out, overwrite=True)
    assert not (tmp_path / "p.interrupted.safetensors").exists()
    assert SoftPrompt.load(out).card.seed == 2


def test_an_unfinished_prompt_gives_way_only_to_a_better_one(
    model: FrozenModel, task: Task, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    with pytest.raises(Interrupted):
        tune_to_file(model, task, LONG, out, on_event=interrupt)
    unscored = out.read_bytes()
    with pytest.raises(SpotonError, match=r"exists\. Choose another --out"):
        tune_to_file(model, task, LONG, out)
    tune_to_file(model, task, RECIPE, tmp_path / "scored.safetensors")
    (tmp_path / "scored.safetensors").replace(out)
    scored = out.read_bytes()
    with pytest.raises(Interrupted):
        tune_to_file(model, task, LONG, out, resume=True, on_event=interrupt)
    assert out.read_bytes() == scored != unscored


def test_adapt_refuses_what_is_finished(
    model: FrozenModel, task: Task, library: PromptLibrary, tmp_path: Path
) -> None:
    out = tmp_path / "a" / "p.safetensors"
    adapt(model, task, [library], RECIPE, out=out)
    before = contents(out.parent)
    with pytest.raises(SpotonError, match="exists and is finished"):
        adapt(model, task, [library], RECIPE, out=out)
    with pytest.raises(Interrupted):
        adapt(model, task, [library], LONG, out=out, overwrite=True, on_event=interrupt)
    assert before.items() <= contents(out.parent).items()


def test_a_finished_model_survives_an_interrupt(model: FrozenModel, task: Task, tmp_path: Path) -> None:
    out, recipe = tmp_path / "m", ModelRecipe(steps=2, evaluate_every=1, batch_size=2)
    tune_model_to_folder(model, task, recipe, out)
    before = contents(out)
    with pytest.raises(SpotonError, match="holds a finished model"):
        tune_model_to_folder(model, task, recipe, out)
    with pytest.raises(Interrupted, match=r"finished model .* is as it was"):
        tune_model_to_folder(model, task, recipe.changed(seed=1), out, overwrite=True, on_event=interrupt)
    assert before.items() <= contents(out).items()


def test_damaged_parts_of_adapt_are_made_again(
    model: FrozenModel, task: Task, library: PromptLibrary, tmp_path: Path
) -> None:
    """A file of .work with a flipped bit neither blocks a resumed call nor changes its result."""
    whole, out = tmp_path / "whole.safetensors", tmp_path / "p.safetensors"
    adapt(model, task, [library], RECIPE, out=whole)
    steps = 0

    def stop_late(event: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps > 6:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        adapt(model, task, [library], RECIPE, out=out, on_event=stop_late)
    kept = [path for path in out.with_suffix(".work").iterdir() if path.is_file()]
    assert kept
    for path in kept:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    adapt(model, task, [library], RECIPE, out=out)
    assert SoftPrompt.load(out).content_hash() == SoftPrompt.load(whole).content_hash()
