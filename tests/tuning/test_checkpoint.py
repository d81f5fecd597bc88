"""Checkpoints: a round trip is exact, and damage or a foreign run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spoton.errors import RecipeError
from spoton.tuning import Recipe
from spoton.tuning.checkpoint import State, read_checkpoint, write_checkpoint
from spoton.tuning.optimizer import make_optimizer
from tests.tiny import draw


def stepped(recipe: Recipe, prompt: torch.Tensor, *seeds: int) -> torch.optim.Optimizer:
    """An optimizer that has taken a step for every seed."""
    optimizer = make_optimizer(recipe, prompt)
    for seed in seeds:
        prompt.grad = draw(*prompt.shape, seed=seed)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_what_is_read_goes_on_as_what_was_written(tmp_path: Path, name: str) -> None:
    recipe = Recipe(optimizer=name, weight_decay=1e-3)
    prompt = draw(3, 4).requires_grad_()
    optimizer = stepped(recipe, prompt, 1, 2)
    state = State(
        prompt=prompt, step=2, best=draw(3, 4, seed=3), best_step=1, best_score=50.0, best_loss=0.7,
        key=draw(3, 4, seed=4), history=[{"step": 1.0, "loss": 0.1 + 0.2}], seconds=1.5,
    )  # fmt: skip
    write_checkpoint(tmp_path / "c", state, optimizer, "run")

    resumed = torch.zeros(3, 4, requires_grad=True)
    other = make_optimizer(recipe, resumed)
    found = read_checkpoint(tmp_path / "c", other, "run")
    plain = ("step", "best_step", "best_score", "best_loss", "history", "seconds")
    assert all(getattr(found, field) == getattr(state, field) for field in plain)
    assert found.best is not None and state.best is not None and torch.equal(found.best, state.best)
    assert found.key is not None and state.key is not None and torch.equal(found.key, state.key)
    with torch.no_grad():
        resumed.copy_(found.prompt)
    for each, its in ((prompt, optimizer), (resumed, other)):
        each.grad = draw(3, 4, seed=5)
        its.step()
    assert torch.equal(prompt, resumed)


def test_before_the_first_look_there_is_neither_best_nor_key(tmp_path: Path) -> None:
    prompt = draw(3, 4).requires_grad_()
    write_checkpoint(tmp_path / "c", State(prompt=prompt), make_optimizer(Recipe(), prompt), "run")
    found = read_checkpoint(tmp_path / "c", make_optimizer(Recipe(), prompt), "run")
    assert found.best is None and found.key is None and found.best_score == float("-inf")


def test_another_run_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    prompt = draw(3, 4).requires_grad_()
    write_checkpoint(tmp_path / "c", State(prompt=prompt), make_optimizer(Recipe(), prompt), "run")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(RecipeError, match="another recipe, task, model or --dtype"):
        read_checkpoint(tmp_path / "c", make_optimizer(Recipe(), prompt), "another run")
    assert (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    prompt, path = draw(3, 4).requires_grad_(), tmp_path / "c"
    write_checkpoint(path, State(prompt=prompt), make_optimizer(Recipe(), prompt), "run")
    if damage == "foreign":
        save_file({"prompt": draw(3, 4)}, path)
    else:
        path.write_bytes(path.read_bytes()[:-8] if damage == "cut" else b"")
    with pytest.raises(RecipeError, match=r"c is no usable checkpoint.*Remove it"):
        read_checkpoint(path, make_optimizer(Recipe(), prompt), "run")
