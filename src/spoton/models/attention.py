"""Attention over a packed row: the function that transformers calls in every layer, forward and backward by hand.

Grouped heads are folded into the query rows, so keys are never repeated, and a chunk is two matrix products and a
softmax. The backward pass is written out: it keeps the weights (in the model's type) and nothing else that the
forward pass made, and adds up the gradients of keys and values in place, which autograd would do by scattering.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, PreTrainedModel

from spoton.models.packing import Chunk, Layout

ATTENTION_NAME = "spoton_packed"


@contextmanager
def packed_attention(network: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """Makes ``network`` attend by ``layout`` inside the block, and as before after it."""
    config = network.config.get_text_config()
    before = config._attn_implementation
    token = _LAYOUT.set(layout)
    config._attn_implementation = ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _LAYOUT.reset(token)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: The attention layer (its ``layer_idx`` names the cache entry).
        query: ``[1, H, T, hd]``.
        key: ``[1, Hkv, T, hd]``.
        value: ``[1, Hkv, T, hd]``.
        attention_mask: Unused; the layout says who sees whom.
        scaling: Factor on the scores; ``hd ** -0.5`` if None.
        softcap: Gemma 2's cap on the scores.
        kwargs: Whatever else the model passes; nothing in it changes the result of the families supported.

    Returns:
        ``[1, T, H, hd]`` and None for the weights.
    """
    layout = _LAYOUT.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout.record is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]  # every family that has this interface numbers its layers
        for number, chunk in enumerate(layout.prompts):
            part = slice(chunk.start, chunk.stop)
            layout.record.entries[layer, number] = (key[0, :, part].clone(), value[0, :, part].clone())
    cached: dict[int, tuple[Tensor, Tensor]] = {}
    if layout.cache is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        cached = {number: pair for (at, number), pair in layout.cache.entries.items() if at == layer}
    mixed: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        query[0], key[0], value[0], layout, cached, scale, softcap
    )
    return mixed[None], None


class _Attention(torch.autograd.Function):
    """Attention of all chunks of a layout; prompts from a cache get no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        cached: dict[int, tuple[Tensor, Tensor]],
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """``[H, T, hd]``, ``[Hkv, T, hd]`` twice -> ``[T, H, hd]``."""
        heads, total, width = query.shape
        kv_heads = key.shape[0]
        mixed = query.new_empty(total, heads, width)
        kept: list[Tensor] = []
        for chunk in layout.chunks:
            keys, values = _context(key, value, chunk, layout, cached)
            scores = torch.bmm(_folded(query, chunk, kv_heads), keys.transpose(1, 2)).mul_(scale)
            capped: Tensor | None = None
            if softcap is not None:
                capped = scores.div_(softcap).tanh_()
                scores = capped * softcap
            n = chunk.stop - chunk.start
            scores.view(kv_heads, -1, n, keys.shape[1]).add_(chunk.bias)
            weights = torch.softmax(scores, dim=-1)  # sums in float32 also where the scores are bfloat16
            out = torch.bmm(weights, values).view(heads, n, width)
            mixed[chunk.start : chunk.stop] = out.transpose(0, 1)
            kept.extend((weights,) if capped is None else (weights, capped))
        ctx.save_for_backward(query, key, value, *kept)
        ctx.layout, ctx.cached, ctx.scale, ctx.softcap = layout, cached, scale, softcap
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, *kept = ctx.saved_tensors
        layout: Layout = ctx.layout
        kv_heads, _, width = key.shape
        grad_query, grad_key, grad_value = (
            torch.empty_like(query),
            torch.zeros_like(key),
            torch.zeros_like(value),
        )
        grad_heads = grad.transpose(0, 1)
        saved = iter(kept)
        for chunk in layout.chunks:
            keys, values = _context(key, value, chunk, layout, ctx.cached)
            n = chunk.stop - chunk.start
            weights = next(saved)
            out = _folded(grad_heads, chunk, kv_heads)
            to_scores = torch._softmax_backward_data(
                torch.bmm(out, values.transpose(1, 2)), weights, -1, weights.dtype
            )
            if ctx.softcap is not None:
                capped = next(saved)
                to_scores = to_scores * (1 - capped * capped)
            to_scores.mul_(ctx.scale)
            grad_query[:, chunk.start : chunk.stop] = torch.bmm(to_scores, keys).view(-1, n, width)
            to_keys = torch.bmm(to_scores.transpose(1, 2), _folded(query, chunk, kv_heads))
            to_values = torch.bmm(weights.transpose(1, 2), out)
            before = keys.shape[1] - n
            for total, part in ((grad_key, to_keys), (grad_value, to_values)):
                total[:, chunk.start : chunk.stop] += part[:, before:]
                if before and chunk.prompt is not None and chunk.prompt not in ctx.cached:
                    own = layout.prompts[chunk.prompt]
                    total[:, own.start : own.stop] += part[:, :before]
        return grad_query, grad_key, grad_value, None, None, None, None


def _context(
    key: Tensor, value: Tensor, chunk: Chunk, layout: Layout, cached: dict[int, tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Keys and values a chunk may attend to, its prompt's first: ``[Hkv, P + N, hd]`` each."""
    part = slice(chunk.start, chunk.stop)
    if chunk.prompt is None:
        return key[:, part], value[:, part]
    if chunk.prompt in cached:
        own_key, own_value = cached[chunk.prompt]
    else:
        own = layout.prompts[chunk.prompt]
        own_key, own_value = key[:, own.start : own.stop], value[:, own.start : own.stop]
    return torch.cat([own_key, key[:, part]], dim=1), torch.cat([own_value, value[:, part]], dim=1)


def _folded(heads: Tensor, chunk: Chunk, kv_heads: int) -> Tensor:
    """A chunk of ``[H, T, hd]`` with the heads that share keys folded into its rows: ``[Hkv, G * N, hd]``."""
    return heads[:, chunk.start : chunk.stop].reshape(kv_heads, -1, heads.shape[-1])


_LAYOUT: ContextVar[Layout] = ContextVar("spoton_layout")
AttentionInterface.register(ATTENTION_NAME, attention)
