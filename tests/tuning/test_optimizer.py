"""The optimizers against their formulas."""

import numpy as np
import pytest
import torch

from spoton.tuning import Recipe
from spoton.tuning.optimizer import Adafactor, make_optimizer, rate_factor, set_rate


def test_adafactor_follows_the_reference_formula() -> None:
    rng = np.random.default_rng(0)
    p, v = rng.normal(size=(3, 4)), np.zeros((3, 4))
    prompt = torch.tensor(p, requires_grad=True)
    optimizer = Adafactor([prompt], lr=0.3, weight_decay=1e-2)
    for i, size in enumerate((1.0, 5.0, 0.1)):
        g = rng.normal(size=(3, 4)) * size
        prompt.grad = torch.tensor(g)
        optimizer.step()
        beta2 = 1 - (i + 1.0) ** -0.8
        v = beta2 * v + (1 - beta2) * (g * g + 1e-30)
        y = g / np.sqrt(v)
        y /= max(1.0, np.sqrt((y**2).mean()))
        p = (1 - 1e-2) * p - 0.3 * y
        np.testing.assert_allclose(prompt.detach().numpy(), p, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_weight_decay_is_not_multiplied_by_the_learning_rate(name: str) -> None:
    prompt = torch.full((2, 3), 2.0, requires_grad=True)
    prompt.grad = torch.zeros(2, 3)
    make_optimizer(Recipe(optimizer=name, weight_decay=0.25), [prompt], 0.01).step()
    torch.testing.assert_close(prompt.detach(), torch.full((2, 3), 1.5))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_weight_decay_does_not_follow_the_schedule(name: str) -> None:
    recipe = Recipe(optimizer=name, weight_decay=0.25, schedule="linear", warmup=2, steps=4)
    prompt = torch.full((2, 3), 2.0, requires_grad=True)
    optimizer = make_optimizer(recipe, [prompt], 0.01)
    for step in range(4):
        prompt.grad = torch.zeros(2, 3)
        set_rate(optimizer, recipe, 0.01 * rate_factor(recipe, step))
        optimizer.step()
    torch.testing.assert_close(prompt.detach(), torch.full((2, 3), 2.0 * 0.75**4))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_a_schedule_warms_up_and_falls_to_zero_at_the_last_step(schedule: str, expected: list[float]) -> None:
    recipe = Recipe(schedule=schedule, warmup=2, steps=6)
    assert [rate_factor(recipe, step) for step in range(6)] == pytest.approx(expected, abs=1e-6)
