"""Reparameterizations: each begins at the start, learns, and makes what its formula says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from spoton.tuning.parameterization import Parameterization
from spoton.tuning.recipe import Reparameterization
from tests.tiny import draw

KINDS: tuple[Reparameterization, ...] = ("none", "residual", "superposition", "low_rank")


def parameterization(kind: Reparameterization) -> Parameterization:
    return Parameterization(kind, draw(5, 16), draw(300, 16, seed=1), seed=3)


def moved(kind: Reparameterization) -> Parameterization:
    """Away from its start, so that a formula shows."""
    made = parameterization(kind)
    with torch.no_grad():
        for place, tensor in enumerate(made.tensors.values()):
            tensor.add_(draw(*tensor.shape, seed=20 + place, scale=0.3))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_exactly_at_the_start(kind: Reparameterization) -> None:
    assert torch.equal(parameterization(kind).prompt(), draw(5, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_reach_another_prompt(kind: Reparameterization) -> None:
    made, wanted = parameterization(kind), draw(5, 16, seed=9)
    optimizer = torch.optim.Adam(list(made.tensors.values()), lr=0.02)
    before = functional.mse_loss(made.prompt(), wanted)
    for _ in range(200):
        optimizer.zero_grad()
        loss = functional.mse_loss(made.prompt(), wanted)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * before


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_prompt(kind: Reparameterization) -> None:
    assert torch.equal(moved(kind).prompt(), moved(kind).prompt())


def test_the_formulas() -> None:
    start, embeddings = draw(5, 16), draw(300, 16, seed=1)
    order = torch.Generator().manual_seed(3)
    superposition = moved("superposition")
    rows = embeddings[torch.randperm(300, generator=order)[:128]]
    torch.testing.assert_close(superposition.prompt(), start + superposition.tensors["weights"] @ rows)
    low_rank = moved("low_rank")
    gaussian = torch.randn(64, 16, generator=torch.Generator().manual_seed(3)) / 8
    code, scale, shift = low_rank.tensors.values()
    torch.testing.assert_close(low_rank.prompt(), start + (code @ gaussian) * scale + shift)
    residual = moved("residual")
    prompt, down, up, gain = residual.tensors.values()
    hidden = functional.relu(prompt @ down) @ up
    normed = (hidden - hidden.mean(1, keepdim=True)) / (
        hidden.var(1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(residual.prompt(), prompt + gain * normed)
