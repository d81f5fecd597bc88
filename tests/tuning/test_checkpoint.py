"""Checkpoints: a round trip is exact, and damage or a foreign run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spoton.errors import RecipeError
from spoton.models import FrozenModel
from spoton.tuning import Recipe
from spoton.tuning.checkpoint import PromptCheckpoint
from spoton.tuning.course import Course
from spoton.tuning.optimizer import make_optimizer
from spoton.tuning.prompt_learner import PromptLearner
from spoton.tuning.sealed_tensors import read_sealed, write_sealed
from tests.tiny import draw, tiny


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


def learner_of(model: FrozenModel, recipe: Recipe, seed: int = 0) -> PromptLearner:
    return PromptLearner(model, recipe, draw(3, model.dim, seed=seed))


def optimizer_of(recipe: Recipe, learner: PromptLearner) -> torch.optim.Optimizer:
    return make_optimizer(recipe, learner.parameters, learner.rate)


def step(learner: PromptLearner, optimizer: torch.optim.Optimizer, number: int) -> None:
    """A step with gradients that follow from its number."""
    for place, tensor in enumerate(learner.parameters):
        tensor.grad = draw(*tensor.shape, seed=10 * number + place)
    optimizer.step()
    learner.stepped(number)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("kind", ["none", "residual", "superposition", "low_rank"])
def test_what_is_read_resumes_as_what_was_written(
    model: FrozenModel, tmp_path: Path, name: str, kind: str
) -> None:
    recipe = Recipe(optimizer=name, weight_decay=1e-3, average=0.9, key_step=1, reparameterization=kind)
    learner = learner_of(model, recipe)
    optimizer = optimizer_of(recipe, learner)
    step(learner, optimizer, 1)
    learner.keep("average")
    step(learner, optimizer, 2)
    course = Course(2, 1, "average", 50.0, 0.7, [{"step": 1.0, "loss": 0.1 + 0.2}], 1.5)
    PromptCheckpoint(tmp_path / "c", "run").write(course, learner, optimizer)

    other = learner_of(model, recipe)
    its = optimizer_of(recipe, other)
    assert PromptCheckpoint(tmp_path / "c", "run").read(other, its) == course
    step(learner, optimizer, 3)
    step(other, its, 3)
    for one, two in (
        (learner.prompt(), other.prompt()),
        (learner.average, other.average),
        (learner.best, other.best),
        (learner.key, other.key),
    ):
        assert one is not None and two is not None and torch.equal(one, two)


def test_before_the_first_evaluation_there_is_neither_best_nor_key(
    model: FrozenModel, tmp_path: Path
) -> None:
    recipe, checkpoint = Recipe(), PromptCheckpoint(tmp_path / "c", "run")
    learner = learner_of(model, recipe)
    assert not checkpoint.exists()
    checkpoint.write(Course(), learner, optimizer_of(recipe, learner))
    other = learner_of(model, recipe, seed=1)
    course = checkpoint.read(other, optimizer_of(recipe, other))
    assert other.best is None and other.key is None and not course.has_evaluated
    assert torch.equal(other.prompt(), learner.prompt())


def test_another_run_is_refused_and_the_file_stays(model: FrozenModel, tmp_path: Path) -> None:
    recipe = Recipe()
    learner = learner_of(model, recipe)
    PromptCheckpoint(tmp_path / "c", "run").write(Course(), learner, optimizer_of(recipe, learner))
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(RecipeError, match="another recipe, task, model or --dtype"):
        PromptCheckpoint(tmp_path / "c", "another run").read(learner, optimizer_of(recipe, learner))
    assert (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign"])
def test_a_damaged_checkpoint_is_refused_by_name(model: FrozenModel, tmp_path: Path, damage: str) -> None:
    recipe, path = Recipe(), tmp_path / "c"
    learner, checkpoint = learner_of(model, recipe), PromptCheckpoint(path, "run")
    checkpoint.write(Course(), learner, optimizer_of(recipe, learner))
    if damage == "foreign":
        save_file({"prompt": draw(3, 4)}, path)
    else:
        path.write_bytes(path.read_bytes()[:-8] if damage == "cut" else b"")
    with pytest.raises(RecipeError, match=r"c is not a usable checkpoint.*Remove it"):
        checkpoint.read(learner, optimizer_of(recipe, learner))


CHANGES: dict[str, tuple[dict[str, torch.Tensor | None], dict[str, object]]] = {
    "a prompt of one token, which would fit by broadcasting": ({"tuned.prompt": torch.zeros(1, 1)}, {}),
    "no prompt": ({"tuned.prompt": None}, {}),
    "a best prompt of another length": ({"best": torch.zeros(2, 2)}, {}),
    "state of another shape": ({"optimizer.0.exp_avg": torch.zeros(2, 2)}, {}),
    "state of a second parameter": ({"optimizer.1.exp_avg": torch.zeros(2, 2)}, {}),
    "state of no parameter": ({"optimizer.x.y": torch.zeros(1)}, {}),
    "no state": (dict.fromkeys(("optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step")), {}),
    "an unknown entry": ({}, {"rate": 0.1}),
    "a step in words": ({}, {"step": "six"}),
    "a step before the first": ({}, {"step": -3}),
    "no history": ({}, {"history": None}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_checkpoint_with_something_else_is_refused(
    model: FrozenModel, tmp_path: Path, change: str
) -> None:
    """Its checksum is right, as that of a file that another version wrote."""
    recipe, path = Recipe(optimizer="adamw"), tmp_path / "c"
    learner, checkpoint = learner_of(model, recipe), PromptCheckpoint(path, "run")
    optimizer = optimizer_of(recipe, learner)
    step(learner, optimizer, 1)
    learner.keep("last")
    checkpoint.write(Course(1, 1, "last", 50.0, 0.7, [{"step": 1.0}], 1.0), learner, optimizer)
    tensors, plain = read_sealed(path)
    other, values = CHANGES[change]
    kept = {name: tensor for name, tensor in (tensors | other).items() if tensor is not None}
    write_sealed(path, kept, plain | values)
    with pytest.raises(RecipeError, match=r"c is not a usable checkpoint.*Remove it"):
        checkpoint.read(learner, optimizer)
