"""Attention over a packed row, which transformers calls in every layer; forward and backward by hand.

A block is two batched matrix products and a softmax. Heads that share keys are rows of one product, so no keys are
repeated. The backward pass is written out: it keeps the weights (in the model's type), the scaled queries, keys and
values, and gathers gradients where autograd would scatter them. All this is for CPUs; on other devices PyTorch's fused
attention runs the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from spoton.models.packed_rows import Block, Layout

ATTENTION_NAME = "spoton_packed"


@contextmanager
def packed_attention(network: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """Makes `network` attend by `layout` inside the block, and restores its attention afterwards."""
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
    """Attends by the layout; transformers calls it in every layer.

    Args:
        module: The attention layer (its `layer_idx` names the cache entry).
        query: `[1, H, T, hd]`.
        key: `[1, Hkv, T, hd]`.
        value: `[1, Hkv, T, hd]`.
        attention_mask: Unused; the layout decides which tokens see which.
        scaling: Factor on the scores; `hd ** -0.5` if None.
        softcap: Gemma 2's cap on the scores.
        kwargs: Any other options of the model.

    Returns:
        `[1, T, H, hd]` and None for the weights.

    Raises:
        NotImplementedError: The model passes an option that may change the result, such as attention sinks.
    """
    layout = _LAYOUT.get().on(query.device)
    _require_known(kwargs, layout)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout.record is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]  # every family that has this interface numbers its layers
        for number, own in enumerate(layout.prompts):
            part = slice(own.start, own.stop)
            layout.record.entries[layer, number] = (key[0, :, part].clone(), value[0, :, part].clone())
    cached: list[tuple[Tensor, Tensor]] = []
    if layout.cache is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]  # as above
        cached = layout.cache.pairs(layer, len(layout.prompts))
    if query.device.type != "cpu":
        return _fused(query[0], key[0], value[0], layout, cached, scale, softcap)[None], None
    mixed: Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        query[0], key[0], value[0], layout, cached, scale, softcap
    )
    return mixed[None], None


# Options that add nothing here: positions are already rotated in, and packed rows know their own ends.
_KNOWN = frozenset({
    "position_ids", "cache_position", "position_embeddings", "use_cache", "output_attentions", "output_hidden_states",
    "return_dict", "output_router_logits", "logits_to_keep", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q",
    "max_length_k", "seq_idx", "deterministic",
})  # fmt: skip


def _require_known(options: dict[str, Any], layout: Layout) -> None:
    """Refuses options that may change the result and that this file does not implement.

    Raises:
        NotImplementedError: There is such an option; the message names it.
    """
    window = options.get("sliding_window")
    if isinstance(window, int) and layout.longest > window:
        raise NotImplementedError(
            f"rows of {layout.longest} tokens are longer than its attention window of {window}"
        )
    for name, value in options.items():
        known = name in _KNOWN or name == "sliding_window" or value is None
        harmless = (name == "dropout" and value == 0) or (name == "is_causal" and value is True)
        if not known and not harmless:
            raise NotImplementedError(f"its attention takes {name}, which packed attention does not know")


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    cached: Sequence[tuple[Tensor, Tensor]],
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Computes the same as `_PackedAttention` with PyTorch's scaled_dot_product_attention: `[T, H, hd]`."""
    heads, _, width = query.shape
    keys = torch.cat([*(one for one, _ in cached), key], dim=1)
    values = torch.cat([*(one for _, one in cached), value], dim=1)
    mixed = []
    for block in layout.blocks:
        n, longest = block.places.shape
        asked = query.index_select(1, block.places.flatten()).view(heads, n, longest, width).transpose(0, 1)
        own_keys, own_values = (
            part.index_select(1, block.seen.flatten())
            .view(len(part), n, -1, width)
            .repeat_interleave(heads // len(part), dim=0)
            .transpose(0, 1)
            for part in (keys, values)
        )
        bias = block.bias[:, None]
        if softcap is None:
            out = functional.scaled_dot_product_attention(asked, own_keys, own_values, bias, scale=scale)
        else:
            scores = torch.tanh(asked @ own_keys.transpose(2, 3) * (scale / softcap)) * softcap
            out = torch.softmax(scores + bias, dim=-1) @ own_values
        mixed.append(out.transpose(1, 2).reshape(n * longest, heads, width).index_select(0, block.real))
    return torch.cat(mixed)


class _PackedAttention(torch.autograd.Function):
    """Attention of all blocks of a layout; prompts from a cache get no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        cached: Sequence[tuple[Tensor, Tensor]],
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """`[H, T, hd]`, `[Hkv, T, hd]` twice -> `[T, H, hd]`."""
        heads, total, width = query.shape
        kv_heads = key.shape[0]
        queries = (query.transpose(0, 1) * scale).reshape(-1, width)  # fewer numbers to scale than the scores
        keys = _table(key, [one for one, _ in cached])
        values = _table(value, [one for _, one in cached])
        mixed = query.new_empty(total, heads, width)
        kept: list[Tensor] = []
        for block, at in zip(layout.blocks, _indices(layout, heads, kv_heads), strict=True):
            n, longest = block.places.shape
            shape = (n * kv_heads, -1, width)
            # `[n * Hkv, (H / Hkv) * L, P + L]`: heads that share keys are rows of one product.
            asked = queries.index_select(0, at.queries).view(shape)
            scores = torch.bmm(asked, keys.index_select(0, at.keys).view(shape).transpose(1, 2))
            capped: Tensor | None = None
            if softcap is not None:
                capped = scores.div_(softcap).tanh_()
                scores = capped * softcap
            scores.view(n, heads, longest, -1).add_(block.bias[:, None])
            weights = torch.softmax(scores, dim=-1)  # sums in float32 even if the scores are bfloat16
            out = torch.bmm(weights, values.index_select(0, at.keys).view(shape)).view(-1, width)
            _gather(out, at.queries_back, mixed, block)
            kept.extend((weights,) if capped is None else (weights, capped))
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.layout, ctx.heads, ctx.scale, ctx.softcap = layout, (heads, kv_heads, total), scale, softcap
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of query, key and value."""
        queries, keys, values, *kept = ctx.saved_tensors
        layout: Layout = ctx.layout
        heads, kv_heads, total = ctx.heads
        width = queries.shape[-1]
        to_query, to_key, to_value = (
            grad.new_empty(total, number, width) for number in (heads, kv_heads, kv_heads)
        )
        grad = grad.reshape(-1, width)
        saved = iter(kept)
        # The block of the prompts comes first and writes their gradients; those from their texts are added afterwards.
        for block, at in zip(layout.blocks, _indices(layout, heads, kv_heads), strict=True):
            shape = (len(block.places) * kv_heads, -1, width)
            asked = queries.index_select(0, at.queries).view(shape)
            own_keys, own_values = (part.index_select(0, at.keys).view(shape) for part in (keys, values))
            # With scores S = Q K', weights W = softmax(S + bias) and output O = W V:
            # dV = W' dO, dS = W * (dO V' - rowsum(dO * O)), dQ = dS K, dK = dS' Q. The second is what torch's
            # softmax backward computes, from W and dO V' alone.
            weights = next(saved)
            out = grad.index_select(0, at.queries)
            if len(at.padding):
                # Padding must not contribute to the gradient of what it attends to.
                out.index_fill_(0, at.padding, 0)
            out = out.view(shape)
            to_scores = torch._softmax_backward_data(
                torch.bmm(out, own_values.transpose(1, 2)), weights, -1, weights.dtype
            )
            if ctx.softcap is not None:
                capped = next(saved)  # tanh(S / c); the derivative of c tanh(S / c) is 1 - tanh(S / c) ** 2
                to_scores = to_scores * (1 - capped * capped)
            _gather(torch.bmm(to_scores, own_keys).view(-1, width), at.queries_back, to_query, block)
            for total_grad, part in (
                (to_key, torch.bmm(to_scores.transpose(1, 2), asked)),
                (to_value, torch.bmm(weights.transpose(1, 2), out)),
            ):
                _gather(part.view(-1, width), at.keys_back, total_grad, block)
                if block.before and layout.cache is None:
                    by_sequence = part.view(len(block.places), kv_heads, -1, width)
                    _add_to_prompts(by_sequence, total_grad, block, layout)
        # The queries were scaled before the product: dK gets the factor through `queries`, dQ gets it here.
        to_query.mul_(ctx.scale)
        return *(part.transpose(0, 1) for part in (to_query, to_key, to_value)), None, None, None, None


@dataclass(frozen=True)
class _Indices:
    """Rows of `[tokens * heads, hd]` for one block; gathering them also puts heads before tokens.

    Attributes:
        queries: `[n * H * L]` rows of the packed row's queries; heads that share keys are next to each other.
        keys: `[n * Hkv * (P + L)]` rows of the keys, the prompt's first.
        queries_back: `[N * H]` rows of the results for the queries, in packed order.
        keys_back: `[N * Hkv]` rows of the results for the keys, in packed order, without the prompt's.
        padding: The entries of `queries` that are padding.
    """

    queries: Tensor
    keys: Tensor
    queries_back: Tensor
    keys_back: Tensor
    padding: Tensor


def _indices(layout: Layout, heads: int, kv_heads: int) -> list[_Indices]:
    """Returns the indices of every block; the first layer that needs them makes them."""
    found: list[_Indices] | None = layout.indices.get((heads, kv_heads))
    if found is None:
        found = [_indices_of(block, heads, kv_heads) for block in layout.blocks]
        layout.indices[heads, kv_heads] = found
    return found


def _indices_of(block: Block, heads: int, kv_heads: int) -> _Indices:
    places = block.places
    device, longest = places.device, places.shape[1]
    head, kv_head = torch.arange(heads, device=device), torch.arange(kv_heads, device=device)

    def back(flat: Tensor, of: Tensor, before: int) -> Tensor:
        """Returns the place in `[n, heads, before + L]` of every head of the tokens at `flat` of `[n, L]`."""
        sequence, column = (flat // longest)[:, None], (flat % longest)[:, None]
        return ((sequence * len(of) + of) * (before + longest) + before + column).flatten()

    return _Indices(
        queries=(places[:, None] * heads + head[:, None]).flatten(),
        keys=(block.seen[:, None] * kv_heads + kv_head[:, None]).flatten(),
        queries_back=back(block.real, head, 0),
        keys_back=back(block.real, kv_head, block.before),
        padding=back(block.padding, head, 0),
    )


def _table(part: Tensor, cached: Sequence[Tensor]) -> Tensor:
    """Returns keys or values `[Hkv, T, hd]` by token, cached prompts first: `[(sum of P + T) * Hkv, hd]`."""
    whole = torch.cat([*cached, part], dim=1) if cached else part
    return whole.transpose(0, 1).reshape(-1, part.shape[-1])


def _gather(found: Tensor, rows: Tensor, total: Tensor, block: Block) -> None:
    """Writes rows of `found` to the block's places in `[T, heads, hd]`."""
    torch.index_select(found, 0, rows, out=total[block.start : block.stop].view(-1, found.shape[-1]))


def _add_to_prompts(part: Tensor, total: Tensor, block: Block, layout: Layout) -> None:
    """Adds the prompts' part of `[n, Hkv, P + L, hd]` to `[T, Hkv, hd]`, all sequences of a prompt at once."""
    start = 0
    for number, members in groupby(block.prompts or ()):
        stop = start + len(list(members))
        own = layout.prompts[number]
        total[own.start : own.stop] += part[start:stop, :, : block.before].sum(0).transpose(0, 1)
        start = stop


_LAYOUT: ContextVar[Layout] = ContextVar("spoton_layout")
AttentionInterface.register(ATTENTION_NAME, attention)
