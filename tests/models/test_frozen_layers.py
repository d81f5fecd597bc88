"""Layers of frozen weights: values and gradients of the input are those of the plain formulas in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spoton.models.frozen_layers import gated_gelu, is_plain, projected, rms_norm, rotated, tunes_weights
from tests.tiny import draw


def wide(*shape: int, seed: int = 0) -> Tensor:
    return draw(*shape, seed=seed, scale=1.0).double().requires_grad_()


def same(found: Tensor, plain: Tensor, *inputs: Tensor, tolerance: float = 1e-9) -> None:
    """Values, and gradients by every input."""
    torch.testing.assert_close(found, plain, rtol=tolerance, atol=tolerance)
    weights = draw(*plain.shape, seed=9).to(plain.dtype)
    for mine, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((plain * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def test_rms_norm() -> None:
    x, weight = draw(5, 8, scale=2.0).requires_grad_(), 1 + draw(8, seed=1)
    plain = x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * weight
    same(rms_norm(x, weight, 1e-5), plain, x, tolerance=1e-5)  # float32 inside, whatever comes


def test_a_norm_that_overflowed_has_a_gradient_that_tells() -> None:
    x = torch.full((1, 4), 1e30).requires_grad_()
    (gradient,) = torch.autograd.grad(rms_norm(x, torch.ones(4), 1e-5).sum(), x)
    assert gradient.isnan().all()


@pytest.mark.parametrize("count", [1, 3])
def test_projections(count: int) -> None:
    layers = [nn.Linear(6, 4 + i, bias=bool(i % 2)).double().requires_grad_(False) for i in range(count)]
    x = wide(5, 6)
    found = projected(x, *layers)
    for i, layer in enumerate(layers):
        torch.testing.assert_close(found[i], layer(x))
    same(torch.cat(found, dim=-1), torch.cat([layer(x) for layer in layers], dim=-1), x)


def test_rotary_positions() -> None:
    x, angles = wide(5, 3, 8), torch.arange(5.0).double()[:, None, None] * torch.linspace(0.1, 1, 4).double()
    cos, sin = (torch.cat((part, part), dim=-1) for part in (angles.cos(), angles.sin()))
    half = torch.cat((-x[..., 4:], x[..., :4]), dim=-1)
    same(rotated(x, cos, sin), x * cos + half * sin, x)


def test_gated_gelu() -> None:
    gate, up = wide(5, 8), wide(5, 8, seed=1)
    same(gated_gelu(gate, up), functional.gelu(gate, approximate="tanh") * up, gate, up)


def test_networks_that_may_not_be_run_by_hand() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert is_plain(network) and tunes_weights(network)
    with torch.no_grad():
        assert not tunes_weights(network)
    handle = network[0].register_forward_hook(lambda *_: None)
    assert not is_plain(network)
    handle.remove()
    assert is_plain(network) and not tunes_weights(network.requires_grad_(False))
