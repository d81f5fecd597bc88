"""Attention over prompts and texts on a GPU, in two calls of PyTorch's FlashAttention and without padding.

Every token attends to its own sequence (causally) in one call, and every text to its prompt (whole) in another: prompts
are neither copied nor gathered, however many texts share them. With the log-sum-exp of both calls, their outputs are
merged; the backward pass calls FlashAttention's with the merged output and log-sum-exp, which gives each call's exact
share of the gradients. All keys' gradients add up in float32, inside the kernels. The same split is known from ring
attention (https://arxiv.org/abs/2310.01889) and from servers that share prefixes.

FlashAttention needs a GPU and 16 bits. Elsewhere, the same two calls are computed by their formulas, one sequence after
the other: not for speed, but so that everything around them can be checked in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spoton.models.frozen_layers import turn
from spoton.shapes import Float, Int


@dataclass(frozen=True)
class Sequences:
    """Where sequences begin in the queries and the keys of one call: `[n + 1]` int32 each, and their longest.

    Attributes:
        queries: `[n + 1]` first query of each sequence, and the end.
        keys: `[n + 1]` first key of each sequence, and the end.
        most_queries: Queries of the longest, or 2.
        most_keys: Keys of the longest.
    """

    queries: Int[Tensor, " ends"]
    keys: Int[Tensor, " ends"]
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int]) -> Sequences:
        """Returns sequences of these lengths, on the CPU."""
        first_query, first_key = (
            torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys)
        )
        # With at most one query a sequence, FlashAttention takes them for exactly one each; here there may be none.
        return cls(first_query, first_key, max(2, *queries), max(keys))


@dataclass(frozen=True)
class Cascade:
    """The attention of one packed row `[prompts | texts of prompt 0, with their branches | ...]`.

    Attributes:
        own: Prompts, texts and branches, each over its own tokens (a branch also over its text).
        seen: `[S]` token of each key of `own`; None if the keys are the row itself.
        shared: Texts by prompt, over their prompt; None if no prompt has tokens.
        prompts: Tokens of the prompts in the row, which are its first.
        first: Place of the first text after a prompt; texts whose prompt is empty come before it.
    """

    own: Sequences
    seen: Int[Tensor, " S"] | None
    shared: Sequences | None
    prompts: int
    first: int

    def own_keys(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values `[S, Hkv, hd]` of the first call, from those of the row `[T, Hkv, hd]`."""
        if self.seen is None:
            return key, value
        return key.index_select(0, self.seen), value.index_select(0, self.seen)

    def prompt_keys(
        self, key: Tensor, value: Tensor, cached: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Returns keys and values `[sum of P, Hkv, hd]` of the second call, from the row or from a cache."""
        return (key[: self.prompts], value[: self.prompts]) if cached is None else cached


def cascade(
    query: Float[Tensor, "T H hd"],
    key: Float[Tensor, "T Hkv hd"],
    value: Float[Tensor, "T Hkv hd"],
    places: Cascade,
    cached: tuple[Tensor, Tensor] | None,
    scale: float,
) -> tuple[Float[Tensor, "T H hd"], Float[Tensor, "H T"]]:
    """Returns the output `[T, H, hd]` and the log-sum-exp `[H, T]` of the scores, in nats.

    Args:
        query: `[T, H, hd]`.
        key: `[T, Hkv, hd]`.
        value: `[T, Hkv, hd]`.
        places: Which tokens attend to which.
        cached: Keys and values `[sum of P, Hkv, hd]` of the prompts; None: the prompts are in the row.
        scale: Factor on the scores.
    """
    own = places.own_keys(key, value)
    out, weight = flash_forward(query, *own, places.own, scale, is_causal=True)
    if places.shared is None:
        return out, weight
    first, prompts = places.first, places.prompt_keys(key, value, cached)
    out_shared, weight_shared = flash_forward(query[first:], *prompts, places.shared, scale, is_causal=False)
    # exp(a) / (exp(a) + exp(b)) is the share of the first call in each row's weights.
    share = torch.sigmoid(weight[:, first:] - weight_shared).t().unsqueeze(-1)
    out[first:] = torch.lerp(out_shared.float(), out[first:].float(), share)
    torch.logaddexp(weight[:, first:], weight_shared, out=weight_shared)
    weight[:, first:] = weight_shared
    return out, weight


def cascade_backward(
    grad: Float[Tensor, "T H hd"],
    query: Float[Tensor, "T H hd"],
    key: Float[Tensor, "T Hkv hd"],
    value: Float[Tensor, "T Hkv hd"],
    out: Float[Tensor, "T H hd"],
    weight: Float[Tensor, "H T"],
    places: Cascade,
    cached: tuple[Tensor, Tensor] | None,
    scale: float,
) -> tuple[Float[Tensor, "T H hd"], Float[Tensor, "T Hkv hd"], Float[Tensor, "T Hkv hd"]]:
    """Returns the gradients of query `[T, H, hd]`, key and value `[T, Hkv, hd]`; cached prompts get none.

    Args:
        grad: `[T, H, hd]` of the output.
        query: As in `cascade`, like the others that are not named here.
        key: `[T, Hkv, hd]`.
        value: `[T, Hkv, hd]`.
        out: `[T, H, hd]`, what `cascade` returned.
        weight: `[H, T]`, likewise.
        places: Which tokens attend to which.
        cached: Keys and values of the prompts, if they are not in the row.
        scale: Factor on the scores.
    """
    own = places.own_keys(key, value)
    to_query, *to_own = flash_backward(grad, query, *own, out, weight, places.own, scale, is_causal=True)
    if places.seen is not None:
        to_own = [torch.zeros_like(key).index_add_(0, places.seen, part) for part in to_own]
    to_key, to_value = to_own
    if places.shared is not None:
        first, prompts = places.first, places.prompt_keys(key, value, cached)
        shared_query, *to_prompts = flash_backward(
            grad[first:], query[first:], *prompts, out[first:], weight[:, first:].contiguous(), places.shared, scale,
            is_causal=False,
        )  # fmt: skip
        to_query[first:] += shared_query
        if cached is None:
            to_key[: places.prompts] += to_prompts[0]
            to_value[: places.prompts] += to_prompts[1]
    return to_query, to_key, to_value


class CascadeOfRotated(torch.autograd.Function):
    """Rotary positions and attention of one layer, from the joint projection to the output of the heads."""

    @staticmethod
    def forward(
        ctx: Any,
        joint: Tensor,
        cos: Tensor,
        sin: Tensor,
        heads: tuple[int, int],
        places: Cascade,
        cached: tuple[Tensor, Tensor] | None,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`[T, H + 2 Hkv, hd]` -> output `[T, H, hd]`, and keys and values `[T, Hkv, hd]`, which get no gradient."""
        turned = sum(heads)
        both = turn(joint[:, :turned], cos, sin)
        query, key, value = both[:, : heads[0]], both[:, heads[0] :], joint[:, turned:]
        out, weight = cascade(query, key, value, places, cached, scale)
        ctx.save_for_backward(both, joint, cos, sin, out, weight)
        ctx.heads, ctx.places, ctx.cached, ctx.scale = heads, places, cached, scale
        ctx.mark_non_differentiable(key, value)
        return out, key, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradient of the joint projection, `[T, H + 2 Hkv, hd]`."""
        both, joint, cos, sin, out, weight = ctx.saved_tensors
        n, turned = ctx.heads[0], sum(ctx.heads)
        to_query, to_key, to_value = cascade_backward(
            grad.contiguous(), both[:, :n], both[:, n:], joint[:, turned:], out, weight, ctx.places, ctx.cached,
            ctx.scale,
        )  # fmt: skip
        total = torch.cat([turn(torch.cat([to_query, to_key], 1), cos, sin, back=True), to_value], 1)
        return total, None, None, None, None, None, None


def flash_forward(
    query: Tensor, key: Tensor, value: Tensor, at: Sequences, scale: float, *, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Returns the output `[T, H, hd]` and the log-sum-exp `[H, T]`.

    The last query of a causal sequence sees its last key.
    """
    if query.device.type == "cpu":
        return _forward_by_formula(query, key, value, at, scale, is_causal=is_causal)
    out, weight, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, at.queries, at.keys, at.most_queries, at.most_keys, 0.0, is_causal, False, scale=scale
    )  # fmt: skip
    return out, weight


def flash_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    weight: Tensor,
    at: Sequences,
    scale: float,
    *,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns gradients of query, key and value, from the output and log-sum-exp over all keys of each query.

    All are `[T, H, hd]` or `[T, Hkv, hd]`, as in `flash_forward`; a query may have more keys than in this call.
    """
    if query.device.type == "cpu":
        return _backward_by_formula(grad, query, key, value, out, weight, at, scale, is_causal=is_causal)
    state = _no_dropout(query.device)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        grad, query, key, value, out, weight, at.queries, at.keys, at.most_queries, at.most_keys, 0.0, is_causal,
        state, state, scale=scale,
    )  # fmt: skip
    return found


@cache
def _no_dropout(device: torch.device) -> Tensor:
    """Returns the state of the random numbers of a dropout that is off."""
    return torch.zeros(2, dtype=torch.uint64, device=device)


def _forward_by_formula(
    query: Tensor, key: Tensor, value: Tensor, at: Sequences, scale: float, *, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Computes `softmax(S) V` and `logsumexp(S)` with `S = scale Q K'`."""
    out, weight = torch.zeros_like(query), query.new_zeros(query.shape[1], len(query), dtype=torch.float32)
    for asked, seen in _each(at):
        scores = _scores(query[asked], key[seen], scale, is_causal=is_causal)
        weight[:, asked] = torch.logsumexp(scores, dim=-1)
        out[asked] = torch.einsum("hqk,khd->qhd", torch.softmax(scores, -1), _for_all(value[seen], query)).to(
            out
        )
    return out, weight


def _backward_by_formula(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, weight: Tensor, at: Sequences, scale: float,
    *, is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """With `W = exp(S - weight)`: `dV = W' dO`, `dS = W * (dO V' - rowsum(dO * O))`, `dQ = dS K`, `dK = dS' Q`."""
    to_query, to_key, to_value = map(torch.zeros_like, (query, key, value))
    inner = torch.einsum("qhd,qhd->hq", grad.float(), out.float())
    for asked, seen in _each(at):
        shares = torch.exp(
            _scores(query[asked], key[seen], scale, is_causal=is_causal) - weight[:, asked, None]
        )
        into, keys, values = grad[asked].float(), _for_all(key[seen], query), _for_all(value[seen], query)
        to_scores = shares * (torch.einsum("qhd,khd->hqk", into, values) - inner[:, asked, None]) * scale
        to_query[asked] += torch.einsum("hqk,khd->qhd", to_scores, keys).to(query)
        shape = (*key[seen].shape[:2], -1, key.shape[2])  # heads that share a key add up
        to_key[seen] += (
            torch.einsum("hqk,qhd->khd", to_scores, query[asked].float()).view(shape).sum(2).to(key)
        )
        to_value[seen] += torch.einsum("hqk,qhd->khd", shares, into).view(shape).sum(2).to(value)
    return to_query, to_key, to_value


def _each(at: Sequences) -> Iterator[tuple[slice, slice]]:
    """Returns the queries and the keys of each sequence."""
    queries, keys = at.queries.tolist(), at.keys.tolist()
    for i in range(len(queries) - 1):
        yield slice(queries[i], queries[i + 1]), slice(keys[i], keys[i + 1])


def _scores(query: Tensor, key: Tensor, scale: float, *, is_causal: bool) -> Tensor:
    """Returns `[H, Q, K]` float32; -inf where a query may not look."""
    scores = torch.einsum("qhd,khd->hqk", query.float(), _for_all(key, query)) * scale
    if is_causal:
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(scores.shape[2] - scores.shape[1] + 1)
        scores.masked_fill_(hidden, float("-inf"))
    return scores


def _for_all(shared: Tensor, query: Tensor) -> Tensor:
    """Returns keys or values `[K, Hkv, hd]` for every head of the queries, float32: `[K, H, hd]`."""
    return shared.float().repeat_interleave(query.shape[1] // shared.shape[1], dim=1)
