"""The T5 family (T5, T5 v1.1, Flan-T5, mT5, umT5) layer by layer, without work that a frozen model does not need.

Rows of similar length form groups, so almost nothing is padded. The relative position bias is computed once and added
within the product of queries and keys. Attention's backward pass is written out. Where targets are short, the decoder
attends to the encoder's states themselves instead of projecting each of them to a key and a value: `q (W h) = (q W) h`,
and there are far more states h than queries q. This file has no losses, no tokens and no generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from spoton.models.frozen_layers import gated_gelu, projected, rms_norm
from spoton.shapes import Float, Int

T5_FAMILIES = ("t5", "mt5", "umt5")

# A row joins a group if it is shorter than the group's longest row by at most this share of the longest.
_LIKE_LENGTH = 1 / 16


@dataclass(frozen=True)
class Group:
    """Rows of similar length, padded to the longest of them.

    Attributes:
        rows: The rows of the batch.
        start: First place of the group among the tokens of all groups.
        length: L, tokens of a row with its padding.
        lengths: Tokens of each row without padding.
    """

    rows: tuple[int, ...]
    start: int
    length: int
    lengths: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Place after the group among the tokens of all groups."""
        return self.start + len(self.rows) * self.length


@dataclass(frozen=True)
class EncodedRows:
    """The encoder's output for a batch.

    Attributes:
        groups: The rows of each group and their places.
        states: `[B_g, L_g, D]` the encoder's states of each group.
        masks: `[B_g, 1, L_g]` of each group: 0 for tokens, -inf for padding; None if there is no padding.
    """

    groups: tuple[Group, ...]
    states: tuple[Float[Tensor, "_ _ D"], ...]
    masks: tuple[Float[Tensor, "_ 1 _"] | None, ...]


def grouped(lengths: Sequence[int]) -> tuple[Group, ...]:
    """Groups rows by length, the longest first.

    Args:
        lengths: Tokens of each row.
    """
    groups: list[Group] = []
    waiting: list[int] = []
    place = 0
    for row in [*sorted(range(len(lengths)), key=lambda row: -lengths[row]), None]:
        if waiting and (row is None or lengths[row] < lengths[waiting[0]] * (1 - _LIKE_LENGTH)):
            longest = lengths[waiting[0]]
            group = Group(tuple(waiting), place, longest, tuple(lengths[one] for one in waiting))
            groups.append(group)
            place = group.stop
            waiting = []
        if row is not None:
            waiting.append(row)
    return tuple(groups)


def encode(encoder: Any, rows: Sequence[Float[Tensor, "_ D"]]) -> EncodedRows:
    """Runs the encoder.

    Args:
        encoder: The encoder of a model of `FAMILIES`.
        rows: `[L_b, D]` embedded input of each row, with its prompt first.
    """
    groups = grouped([len(row) for row in rows])
    parts = []
    for group in groups:
        for row, length in zip(group.rows, group.lengths, strict=True):
            parts.append(rows[row])
            if length < group.length:
                parts.append(rows[row].new_zeros(group.length - length, rows[row].shape[1]))
    x = torch.cat(parts)
    masks = tuple(_mask(group, x) for group in groups)
    biases: tuple[Tensor, ...] = ()
    for block in encoder.block:
        layer, feed_forward = block.layer[0], block.layer[-1]
        own = layer.SelfAttention
        if own.has_relative_attention_bias:  # in every layer of umT5; only in the first layer of the others
            whole = own.compute_bias(groups[0].length, groups[0].length)[0].to(x.dtype)
            biases = tuple(_bias(whole, group, mask) for group, mask in zip(groups, masks, strict=True))
        query, key, value = projected(_normed(x, layer.layer_norm), own.q, own.k, own.v)
        mixed = _AttentionWithinRows.apply(query, key, value, groups, biases, own.n_heads)  # type: ignore[no-untyped-call]
        x = x + projected(mixed, own.o)[0]
        x = x + _fed_forward(_normed(x, feed_forward.layer_norm), feed_forward.DenseReluDense)
    x = _normed(x, encoder.final_layer_norm)
    pieces = torch.split(x, [group.stop - group.start for group in groups])
    states = [
        piece.view(len(group.rows), group.length, -1) for piece, group in zip(pieces, groups, strict=True)
    ]
    return EncodedRows(groups, tuple(states), masks)


def decode(decoder: Any, encoded: EncodedRows, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
    """Returns the decoder's last hidden states `[B, N, D]`, rows in the order of `encoded.groups`.

    Args:
        decoder: The decoder of a model of `FAMILIES`.
        encoded: The output of `encode` for the rows.
        tokens: `[B, N]` decoder input of each row, in that same order.
    """
    n_rows, n = tokens.shape
    x = decoder.get_input_embeddings()(tokens).flatten(0, 1)
    future = torch.full((n, n), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
    bias = future[None]
    for block in decoder.block:
        layer, cross, feed_forward = block.layer
        own = layer.SelfAttention
        if own.has_relative_attention_bias:
            bias = own.compute_bias(n, n)[0].to(x.dtype) + future
        parts = projected(_normed(x, layer.layer_norm), own.q, own.k, own.v)
        query, key, value = (part.view(n_rows, n, own.n_heads, -1).transpose(1, 2) for part in parts)
        # T5 does not divide scores by the root of the width; its initialization puts that factor into the queries.
        weights = torch.softmax(query @ key.transpose(2, 3) + bias, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(n_rows * n, -1)
        x = x + projected(mixed, own.o)[0]
        x = x + _attended(_normed(x, cross.layer_norm).view(n_rows, n, -1), encoded, cross.EncDecAttention)
        x = x + _fed_forward(_normed(x, feed_forward.layer_norm), feed_forward.DenseReluDense)
    return _normed(x, decoder.final_layer_norm).view(n_rows, n, -1)


def scales_outputs(network: PreTrainedModel) -> bool:
    """Returns whether outputs are scaled before the output layer: in T5 and umT5, if it is the embedding matrix."""
    config = network.config
    if config.model_type == "umt5":
        return bool(config.tie_word_embeddings)
    return bool(getattr(config, "scale_decoder_outputs", False))


def _attended(x: Tensor, encoded: EncodedRows, module: Any) -> Tensor:
    """Returns attention `[B * N, D]` of decoder positions `[B, N, D]` to the encoder's states."""
    heads: int = module.n_heads
    n = x.shape[1]
    weights: list[Tensor] = [getattr(module, name).weight for name in "qkvo"]
    of_query, of_key, of_value, of_out = weights
    query = functional.linear(x, of_query).view(*x.shape[:2], heads, -1)
    width = query.shape[-1]
    key_by_head, value_by_head = (w.view(heads, width, -1) for w in (of_key, of_value))
    found, start = [], 0
    for group, states, mask in zip(encoded.groups, encoded.states, encoded.masks, strict=True):
        size = len(group.rows)
        one = query[start : start + size].permute(2, 0, 1, 3).reshape(heads, size * n, width)
        start += size
        # Both ways give the same scores up to rounding. The first makes `heads * n` queries of width D for each
        # row; the second projects every state to a key and a value. The first takes less work while targets are short.
        if 2 * n <= width:
            asked = torch.bmm(one, key_by_head).view(heads, size, n, -1).transpose(0, 1)
            mixed = _Absorbed.apply(asked.reshape(size, heads * n, -1), states, mask)  # type: ignore[no-untyped-call]
            mixed = mixed.view(size, heads, n, -1).transpose(0, 1).reshape(heads, size * n, -1)
            out = torch.bmm(mixed, value_by_head.transpose(1, 2)).view(heads, size, n, width)
        else:
            key, value = (
                part.view(size, group.length, heads, width).permute(2, 0, 1, 3)
                for part in projected(states.flatten(0, 1), module.k, module.v)
            )
            scores = one.view(heads, size, n, width) @ key.transpose(2, 3)
            out = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ value
        found.append(out.permute(1, 2, 0, 3).reshape(size * n, -1))
    return functional.linear(torch.cat(found), of_out)


def _normed(x: Tensor, module: Any) -> Tensor:
    return rms_norm(x, module.weight, module.variance_epsilon)


def _fed_forward(x: Tensor, module: Any) -> Tensor:
    """Runs either kind of feed-forward layer of the family; `wo` may be in float32."""
    if hasattr(module, "wi_0"):
        gate, up = projected(x, module.wi_0, module.wi_1)
        is_gelu = type(module.act).__name__ == "NewGELUActivation"
        hidden = gated_gelu(gate, up) if is_gelu else module.act(gate) * up
    else:
        hidden = module.act(projected(x, module.wi)[0])
    weight: Tensor = module.wo.weight
    return projected(hidden.to(weight.dtype), module.wo)[0]


def _mask(group: Group, like: Tensor) -> Tensor | None:
    if min(group.lengths) == group.length:
        return None
    mask = like.new_zeros(len(group.rows), 1, group.length)
    for row, length in enumerate(group.lengths):
        mask[row, :, length:] = float("-inf")
    return mask


def _bias(whole: Tensor, group: Group, mask: Tensor | None) -> Tensor:
    """Returns `[B_g * H, L_g, L_g]` the bias on the scores of a group."""
    bias = whole[:, : group.length, : group.length]
    if mask is None:
        return bias.repeat(len(group.rows), 1, 1)
    return (bias[None] + mask[:, None]).flatten(0, 1)


class _AttentionWithinRows(torch.autograd.Function):
    """Attention within rows, group by group; scores are not scaled, as in T5."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        groups: tuple[Group, ...],
        biases: tuple[Tensor, ...],
        heads: int,
    ) -> Tensor:
        """`[T, H * hd]` three times -> `[T, H * hd]`."""
        mixed = torch.empty_like(query)
        kept = []
        for group, bias in zip(groups, biases, strict=True):
            q, k, v = (_by_head(part, group, heads) for part in (query, key, value))
            weights = torch.softmax(torch.baddbmm(bias, q, k.transpose(1, 2)), dim=-1)
            _to_place(mixed, torch.bmm(weights, v), group)
            kept += [q, k, v, weights]
        ctx.save_for_backward(*kept)
        ctx.groups, ctx.heads, ctx.like = groups, heads, (query.shape, query.dtype, query.device)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of query, key and value."""
        shape, dtype, device = ctx.like
        to_query, to_key, to_value = (torch.empty(shape, dtype=dtype, device=device) for _ in range(3))
        for number, group in enumerate(ctx.groups):
            q, k, v, weights = ctx.saved_tensors[4 * number : 4 * number + 4]
            out = _by_head(grad, group, ctx.heads)
            to_scores = torch._softmax_backward_data(
                torch.bmm(out, v.transpose(1, 2)), weights, -1, weights.dtype
            )
            _to_place(to_query, torch.bmm(to_scores, k), group)
            _to_place(to_key, torch.bmm(to_scores.transpose(1, 2), q), group)
            _to_place(to_value, torch.bmm(weights.transpose(1, 2), out), group)
        return to_query, to_key, to_value, None, None, None


class _Absorbed(torch.autograd.Function):
    """Attention whose keys and values are the states themselves; their two gradients add up."""

    @staticmethod
    def forward(ctx: Any, asked: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        """`[B, Q, D]`, `[B, L, D]`, `[B, 1, L]` -> `[B, Q, D]`."""
        scores = torch.bmm(asked, states.transpose(1, 2))
        weights = torch.softmax(scores if mask is None else scores.add_(mask), dim=-1)
        ctx.save_for_backward(asked, states, weights)
        return torch.bmm(weights, states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of the queries and of the states."""
        asked, states, weights = ctx.saved_tensors
        to_scores = torch._softmax_backward_data(
            torch.bmm(grad, states.transpose(1, 2)), weights, -1, weights.dtype
        )
        # The states are both keys and values, so they get both gradients: W' dO and dS' Q.
        to_states = torch.bmm(weights.transpose(1, 2), grad).baddbmm_(to_scores.transpose(1, 2), asked)
        return torch.bmm(to_scores, states), to_states, None


def _by_head(packed: Tensor, group: Group, heads: int) -> Tensor:
    """Returns a group of `[T, H * hd]` as `[B_g * H, L_g, hd]`."""
    part = packed[group.start : group.stop].view(len(group.rows), group.length, heads, -1)
    return part.transpose(1, 2).reshape(len(group.rows) * heads, group.length, -1)


def _to_place(packed: Tensor, found: Tensor, group: Group) -> None:
    """Writes `[B_g * H, L_g, hd]` to the group's places in `[T, H * hd]`."""
    rows = len(group.rows)
    place = packed[group.start : group.stop].view(rows, group.length, -1, found.shape[-1])
    place.copy_(found.view(rows, -1, group.length, found.shape[-1]).transpose(1, 2))
