"""Each way to combine sources against its formula, written down here on its own; and what is tuned in its place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoton.errors import LibraryError, RecipeError
from spoton.models import Batch, FrozenModel, engine_for
from spoton.prompts import Card, SoftPrompt
from spoton.transfer import Retrieved
from spoton.transfer.combining.halving import halving_within
from spoton.transfer.combining.learned_mix import WEIGHT_RATE
from spoton.transfer.combining.methods import starts
from spoton.transfer.combining.multiplicative import MASK_RATE, factorise
from spoton.tuning import Recipe
from spoton.tuning.prompt_run import Job
from spoton.tuning.row_order import rows_of_step
from spoton.tuning.tune import tune_job
from tests.models.naive import naive_loss
from tests.tiny import WIDTH, draw, tiny, toy_task


def source(name: str, similarity: float, value: torch.Tensor, start: torch.Tensor | None = None) -> Retrieved:
    card = Card(name=name, task=name, model="tiny", model_fingerprint="f00d")
    return Retrieved(name, similarity, SoftPrompt(value, card, start=start))


def test_task_vectors_move_the_targets_own_start() -> None:
    own = draw(3, 5, seed=1)
    value, start = draw(3, 5, seed=2), draw(3, 5, seed=3)
    short, short_start = draw(1, 5, seed=4), draw(1, 5, seed=5)
    (made,) = starts(
        [source("a", 0.6, value, start), source("b", 0.2, short, short_start), source("c", 0.9, value)],
        "task-vectors", 3, lambda: own,
    )  # fmt: skip
    expected = own.clone()
    for p in range(3):
        expected[p] += 0.75 * (value[p] - start[p]) + 0.25 * (short[0] - short_start[0])
    torch.testing.assert_close(made.value, expected)
    assert {parent.name: parent.weight for parent in made.parents} == pytest.approx({"a": 0.75, "b": 0.25})


def test_task_vectors_without_what_they_need() -> None:
    known = source("a", 0.5, draw(2, 3), draw(2, 3))
    with pytest.raises(RecipeError, match="needs the target's own start"):
        starts([known], "task-vectors", 2)
    with pytest.raises(LibraryError, match="None of the retrieved prompts knows the start"):
        starts([source("a", 0.5, draw(2, 3))], "task-vectors", 2, lambda: draw(2, 3))


def test_a_learned_mix_is_weighted_sources_and_a_residual() -> None:
    a, b = draw(2, 4, seed=1), draw(2, 4, seed=2)
    (made,) = starts([source("a", 0.3, a), source("b", -0.5, b), source("c", 0.1, 2 * a)], "learned-mix", 2)
    torch.testing.assert_close(made.value, 0.75 * a + 0.25 * 2 * a)
    assert made.tuned_as is not None
    tuned = made.tuned_as.begin(torch.device("cpu"))
    torch.testing.assert_close(tuned.prompt(), made.value)
    with torch.no_grad():
        tuned.tensors["weights"] += torch.tensor([0.1, 0.2, -0.1])
        tuned.tensors["residual"] += 0.5
    weights = [0.75 + WEIGHT_RATE * 0.1, WEIGHT_RATE * 0.2, 0.25 - WEIGHT_RATE * 0.1]
    torch.testing.assert_close(
        tuned.prompt().detach(), weights[0] * a + weights[1] * b + weights[2] * 2 * a + 0.5
    )


def test_sources_that_are_not_similar_begin_alike() -> None:
    a, b = draw(2, 4, seed=1), draw(2, 4, seed=2)
    (made,) = starts([source("a", -0.3, a), source("b", 0.0, b)], "learned-mix", 2)
    torch.testing.assert_close(made.value, (a + b) / 2)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_masks_that_made_the_sources_are_found(count: int, length: int, dim: int, seed: int) -> None:
    """Where the sources are a shared prompt under rank-one masks, the fit gives them back."""
    shared = draw(length, dim, seed=seed, scale=1.0)
    u, v = 1 + draw(count, length, seed=seed + 1, scale=0.1), 1 + draw(count, dim, seed=seed + 2, scale=0.1)
    prompts = torch.stack([shared * torch.outer(u[k], v[k]) for k in range(count)])
    fitted, rows, columns = factorise(prompts)
    again = torch.stack([fitted * torch.outer(rows[k], columns[k]) for k in range(count)])
    assert float((again - prompts).norm() / prompts.norm()) < 1e-2


def test_a_mask_is_tuned_with_the_shared_prompt() -> None:
    a, b = draw(2, 4, seed=1), draw(2, 4, seed=2)
    (made,) = starts([source("a", 0.3, a), source("b", -0.5, b)], "multiplicative", 2)
    shared, rows, columns = factorise(torch.stack([a, b]))
    u, v = rows.mean(0), columns.mean(0)
    torch.testing.assert_close(made.value, shared * torch.outer(u, v))
    assert {parent.name: parent.weight for parent in made.parents} == {"a": 0.5, "b": 0.5}
    assert made.tuned_as is not None
    tuned = made.tuned_as.begin(torch.device("cpu"))
    with torch.no_grad():
        tuned.tensors["shared"] += 0.1
        tuned.tensors["rows"] += 0.2
        tuned.tensors["columns"] -= 0.3
    expected = (shared + 0.1) * torch.outer(u + 0.2 * MASK_RATE, v - 0.3 * MASK_RATE)
    torch.testing.assert_close(tuned.prompt().detach(), expected)
    (one,) = starts([source("a", 0.3, a)], "multiplicative", 2)
    torch.testing.assert_close(one.value, a)


def test_one_step_of_a_learned_mix_moves_weights_and_residual_at_their_own_rates() -> None:
    """The first step of AdamW moves every number by its learning rate, against the sign of its gradient."""
    model, task, rate = tiny("llama"), toy_task(), 0.01
    a, b = draw(4, WIDTH, seed=1, scale=1.0), draw(4, WIDTH, seed=2, scale=1.0)
    (made,) = starts([source("a", 0.6, a), source("b", 0.2, b)], "learned-mix", 4)
    recipe = Recipe(length=4, steps=1, key_step=1, evaluate_every=1, batch_size=4, learning_rate=rate)
    tuned = tune_job(model, Job(task, recipe, made.value, made.parents, tuned_as=made.tuned_as))
    slope = gradient(model, 0.75 * a + 0.25 * b, recipe)
    weights = [
        w - WEIGHT_RATE * rate * float((slope * part).sum().sign()) for w, part in ((0.75, a), (0.25, b))
    ]
    expected = weights[0] * a + weights[1] * b - rate * slope.sign()
    assert tuned.prompt.key is not None
    torch.testing.assert_close(tuned.prompt.key, expected, rtol=1e-3, atol=1e-3)
    assert tuned.prompt.card.parents == list(made.parents)


def gradient(model: FrozenModel, value: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Of the first step's loss in the prompt: the mean over rows of the mean over a target's tokens."""
    task = toy_task()
    rows = [task.train[row] for row in rows_of_step(len(task.train), recipe.batch_size, 0, recipe.seed)]
    prompt = value.clone().requires_grad_()
    losses = []
    for row in rows:
        target = model.encode_target(row.target, end=False)
        losses.append(naive_loss(model, prompt, model.encode_input(row.input), target) / len(target))
    torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
    assert prompt.grad is not None
    return prompt.grad


@pytest.mark.parametrize("method", ["learned-mix", "multiplicative"])
def test_what_is_tuned_in_place_collapses_into_a_prompt_with_the_same_losses(method: str) -> None:
    model = tiny("llama")
    sources = [source("a", 0.5, draw(4, WIDTH, seed=1)), source("b", 0.4, draw(2, WIDTH, seed=2))]
    (made,) = starts(sources, method, 4)  # type: ignore[arg-type]
    assert made.tuned_as is not None
    parts = made.tuned_as.begin(torch.device("cpu"))
    with torch.no_grad():
        for seed, tensor in enumerate(parts.tensors.values()):
            tensor += draw(*tensor.shape, seed=seed, scale=0.1)
    batch = Batch([[5, 6, 7], [9, 10]], [[20], [21, 22]])
    whole = engine_for(model).losses([parts.prompt()], batch)
    card = Card(name="p", task="t", model=model.name, model_fingerprint=model.fingerprint)
    kept = SoftPrompt.from_bytes(SoftPrompt(parts.prompt(), card).to_bytes(), "p")
    torch.testing.assert_close(engine_for(model).losses([kept.value], batch), whole.detach())
    whole.sum().backward()  # type: ignore[no-untyped-call]
    assert all(tensor.grad is not None and bool(tensor.grad.any()) for tensor in parts.tensors.values())


@given(st.integers(2, 20), st.integers(100, 400), st.sampled_from([5, 10]))
@settings(max_examples=60, deadline=None)
def test_halving_stays_within_its_budget(prompts: int, budget: int, every: int) -> None:
    recipe = Recipe(evaluate_every=every, steps=budget)
    try:
        longest, halving = halving_within(budget, prompts, recipe)
    except RecipeError:
        assert every * 2 * prompts > budget / 2  # a rung for every halving did not fit
        return
    taken = halving.taken(prompts, longest.steps)
    assert budget - halving.left(prompts, len(halving.rungs) - 1) < taken <= budget
    assert halving.left(prompts, len(halving.rungs) - 1) == 1
    halving.require_evaluations(longest.steps, every)


def test_halving_says_how_many_steps_it_needs() -> None:
    with pytest.raises(RecipeError, match=r"60 steps do not reach the last of 3 rungs .* more than 280"):
        halving_within(60, 8, Recipe(evaluate_every=20, steps=60))
