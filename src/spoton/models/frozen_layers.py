"""Parts of a layer with frozen weights, forward and backward by hand: fewer passes over memory than autograd makes.

A frozen weight needs no gradient. So a projection keeps nothing for its backward pass, a norm keeps its input and one
number per row, and a gated feed-forward layer keeps the outputs of its two projections. Several projections of one
input add up their gradients within the products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from spoton.shapes import Float

# tanh-GELU is x * sigmoid(x * (_LINEAR + _CUBIC * x^2)), and a sigmoid costs a third of a tanh on a CPU.
_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = _LINEAR * 0.044715


def rms_norm(x: Float[Tensor, "*T D"], weight: Float[Tensor, " D"], epsilon: float) -> Float[Tensor, "*T D"]:
    """Returns `x / rms(x) * weight` over the last dimension, in float32 inside: `[T, D]` in the type of `weight`."""
    found: Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return found


@dataclass(frozen=True)
class Joined:
    """Frozen linear layers of one input as one layer.

    Attributes:
        weight: `[sum of E, D]`.
        bias: `[sum of E]` or None.
    """

    weight: Tensor
    bias: Tensor | None


def projected(x: Float[Tensor, "T D"], *layers: nn.Module | Joined) -> tuple[Float[Tensor, "T _"], ...]:
    """Returns the output of each of several frozen linear layers for `x`: from `[T, D]` to `[T, E]` each."""
    found: tuple[Tensor, ...] = _Projected.apply(x, layers)  # type: ignore[no-untyped-call]  # as above
    return found


def rotated(
    x: Float[Tensor, "T H hd"], cos: Float[Tensor, "T 1 hd"], sin: Float[Tensor, "T 1 hd"]
) -> Float[Tensor, "T H hd"]:
    """Applies rotary positions: `x * cos + rotate_half(x) * sin` for `[T, H, hd]` and `[T, 1, hd]`."""
    found: Tensor = _Rotated.apply(x, cos, sin)  # type: ignore[no-untyped-call]  # as above
    return found


def turn(
    x: Float[Tensor, "T H hd"],
    cos: Float[Tensor, "T 1 hd"],
    sin: Float[Tensor, "T 1 hd"],
    *,
    back: bool = False,
) -> Float[Tensor, "T H hd"]:
    """Returns `[T, H, hd]` with rotary positions, without a gradient; backwards, with the transpose of the rotation.

    It is `x1 * cos - x2 * sin` for the first half of `x` and `x2 * cos + x1 * sin` for the second.
    """
    half, sign = x.shape[-1] // 2, -1 if back else 1
    out = torch.mul(x, cos)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return out


def gated_gelu(gate: Float[Tensor, "*shape"], up: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns `gelu(gate) * up` with the tanh form of GELU: `[...]` like both."""
    found: Tensor = _GatedGelu.apply(gate, up)  # type: ignore[no-untyped-call]  # as above
    return found


def tunes_weights(network: nn.Module) -> bool:
    """Returns whether weights need a gradient now (model tuning), which nothing in this file computes."""
    return torch.is_grad_enabled() and any(weight.requires_grad for weight in network.parameters())


def is_plain(network: nn.Module) -> bool:
    """Returns whether running the weights of `network` by hand skips no hook or compiled call of its modules."""
    return all(
        module._compiled_call_impl is None
        and not hasattr(module, "_hf_hook")  # accelerate moves weights to where they are used
        and not module._forward_hooks
        and not module._forward_pre_hooks
        for module in network.modules()
    )


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """`[T, D]`, `[D]` -> `[T, D]`."""
        wide = x.float()
        mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean_square.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul(wide, scale).mul_(weight.float()).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """`scale * (g * w - y * mean(g * w * y))` with `y = x * scale`."""
        x, weight, scale = ctx.saved_tensors
        scale = scale.masked_fill(
            scale == 0, math.nan
        )  # the squares overflowed; 0 would hide that tuning diverged
        normed = torch.mul(x.float(), scale)
        inner = torch.mul(grad.float(), weight.float())
        mean = torch.mul(inner, normed).sum(dim=-1, keepdim=True).div_(-x.shape[-1])
        return inner.addcmul_(normed, mean).mul_(scale).to(x.dtype), None, None


class _Projected(torch.autograd.Function):
    """Keeps nothing but the frozen weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
        """`[T, D]` -> `[T, E]` for each layer."""
        ctx.weights = [layer.weight for layer in layers]
        return tuple(functional.linear(x, layer.weight, layer.bias) for layer in layers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Returns the sum over all layers, added up within the products."""
        total = torch.mm(grads[0], ctx.weights[0])
        for grad, weight in zip(grads[1:], ctx.weights[1:], strict=True):
            total.addmm_(grad, weight)
        return total, None


class _Rotated(torch.autograd.Function):
    """Linear in `x`, so it does not keep `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turns `x`; see `turn`."""
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Applies the transpose of the rotation."""
        cos, sin = ctx.saved_tensors
        return turn(grad, cos, sin, back=True), None, None


class _GatedGelu(torch.autograd.Function):
    """Keeps gate, up and the sigmoid inside."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """`gate * sigmoid(gate * (a + b gate^2)) * up`."""
        open_share = torch.mul(gate, gate).mul_(_CUBIC).add_(_LINEAR).mul_(gate).sigmoid_()
        ctx.save_for_backward(gate, up, open_share)
        return torch.mul(gate, open_share).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Uses the derivative of GELU, `s + x s (1 - s) (a + 3 b x^2)`."""
        gate, up, open_share = ctx.saved_tensors
        slope = torch.mul(gate, gate).mul_(3 * _CUBIC).add_(_LINEAR)
        slope.mul_(torch.addcmul(open_share, open_share, open_share, value=-1)).mul_(gate).add_(open_share)
        to_up = torch.mul(gate, open_share).mul_(grad)
        return slope.mul_(up).mul_(grad), to_up
