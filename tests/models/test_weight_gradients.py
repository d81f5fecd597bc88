"""Model tuning goes through the engines: the gradient of every weight equals that of the naive formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spoton.models import FrozenModel, engine_for
from tests.models.naive import assert_equal_losses, naive_losses, ragged
from tests.tiny import FAMILIES, WIDTH, tiny


def gradients(model: FrozenModel, losses: Tensor) -> dict[str, Tensor]:
    """Of the mean loss, by weight; weights that no loss depends on are left out."""
    model.network.zero_grad(set_to_none=True)
    losses.mean().backward()  # type: ignore[no-untyped-call]
    return {name: w.grad.clone() for name, w in model.network.named_parameters() if w.grad is not None}


# transformers writes into the state of RWKV, so that its weights have no gradient.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "rwkv"])
def test_weight_gradients_equal_the_naive_formula(family: str) -> None:
    model, nothing = tiny(family), torch.zeros(1, 0, WIDTH)
    engine = engine_for(model)
    model.network.requires_grad_(True)
    losses, expected_losses = engine.losses(nothing, ragged()), naive_losses(model, nothing, ragged())
    assert_equal_losses(losses.detach(), expected_losses.detach())
    found, expected = gradients(model, losses), gradients(model, expected_losses)
    assert found.keys() == expected.keys() and len(found) > 10
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-5 * largest, name


def test_a_frozen_head_still_gives_the_prompt_its_gradient() -> None:
    """Weights below the head may want a gradient; the memory-saving losses serve them exactly."""
    model, nothing = tiny("gpt_neox"), torch.zeros(1, 0, WIDTH)  # its head is a matrix of its own
    engine = engine_for(model)
    model.network.base_model.requires_grad_(True)
    found = gradients(model, engine.losses(nothing, ragged()))
    expected = gradients(model, naive_losses(model, nothing, ragged()))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
