"""Packed attention: many texts and their soft prompts in one row of tokens, without padding.

The packed row is ``[prompt 0 | ... | prompt K-1 | text 0 | text 1 | ... | branch 0 | ...]``. Under causal attention the
prompt's keys and values do not depend on the text behind it, so every prompt stands in the row once, however many
texts follow it, and gradients of all texts meet in it. Linear layers and norms see real tokens only; padding exists
nowhere but inside the attention product, where ragged texts are laid out as ``[R, L]``.

This file is the layout and the attention function that transformers calls (through its ``AttentionInterface``). It
knows nothing of losses, labels or tokenizers; it deals in positions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

ATTENTION_NAME = "spoton_packed"


@dataclass(frozen=True)
class Rows:
    """Tokens that attend to the same kind of context, laid out as ``R`` padded rows.

    Attributes:
        start: First position of these tokens in the packed row; they are contiguous.
        query: ``[R, Lq]`` packed position of each row's tokens; padding repeats a valid one.
        key: ``[R, Lk]`` packed position of each token a row may attend to besides its prompt.
        bias: ``[R, 1, Lq, Lk]`` 0 where attention is allowed, -inf elsewhere.
        unpad: ``[N]`` place of every packed token of this group in the flattened ``[R * Lq]``.
        prompt: ``[R]`` index of the prompt in front of each row.
    """

    start: int
    query: Tensor
    key: Tensor
    bias: Tensor
    unpad: Tensor
    prompt: Tensor


@dataclass
class PromptCache:
    """Keys and values of K prompts, one entry a layer: each ``[K, P, Hkv, hd]``."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where everything stands in one packed row.

    Attributes:
        n_prompts: K, how many prompts there are.
        prompt_length: P, the length of the longest of them (0: no prompt at all).
        prompt_bias: ``[K, P]`` 0 for real prompt tokens, -inf for the padding behind a shorter prompt; None if all
            are P long.
        groups: The text rows and, when scoring, the label branches.
        position_ids: ``[1, T]`` position of every packed token in its own sequence, prompt included.
        cache: Where the prompts' keys and values are read from; with one, the prompts are not in the row.
        record: Where the prompts' keys and values are to be written.
    """

    n_prompts: int
    prompt_length: int
    prompt_bias: Tensor | None
    groups: tuple[Rows, ...]
    position_ids: Tensor
    cache: PromptCache | None = None
    record: PromptCache | None = None

    @property
    def prompt_tokens(self) -> int:
        """How many prompt tokens stand at the front of the packed row."""
        return 0 if self.cache is not None else self.n_prompts * self.prompt_length


def text_rows(start: int, lengths: Sequence[int], prompt: Sequence[int], dtype: torch.dtype) -> Rows:
    """Rows of texts that lie one behind the other from ``start``, each attending to its own past.

    Args:
        start: Packed position of the first token of the first text.
        lengths: Tokens of each text.
        prompt: Index of each text's prompt.
        dtype: Type of the attention scores, for the bias.
    """
    length = torch.tensor(lengths)
    starts = start + torch.cumsum(length, 0) - length
    place = torch.arange(int(length.max()))
    real = place[None, :] < length[:, None]
    query = starts[:, None] + torch.minimum(place[None, :], (length - 1)[:, None])
    allowed = (place[:, None] >= place[None, :])[None] & real[:, None, :]
    return Rows(
        start, query, query, _bias(allowed, dtype), real.flatten().nonzero()[:, 0], torch.tensor(prompt)
    )


def branch_rows(
    start: int, texts: Rows, parents: Sequence[int], lengths: Sequence[int], dtype: torch.dtype
) -> Rows:
    """Rows of branches (label words) that continue a text without seeing each other.

    Args:
        start: Packed position of the first token of the first branch; branches lie one behind the other.
        texts: The rows of the texts the branches continue.
        parents: Row of ``texts`` each branch continues.
        lengths: Tokens of each branch.
        dtype: Type of the attention scores, for the bias.
    """
    parent = torch.tensor(parents)
    own = text_rows(start, lengths, texts.prompt[parent].tolist(), dtype)
    last = texts.bias[parent, :, -1:, :]  # padded query places see the whole text: what its last token sees
    past = last.expand(-1, -1, own.query.shape[1], -1)
    return Rows(
        start,
        own.query,
        torch.cat([texts.key[parent], own.key], dim=1),
        torch.cat([past, own.bias], dim=-1),
        own.unpad,
        own.prompt,
    )


def prompt_bias(lengths: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """``[K, P]`` bias that hides the padding behind shorter prompts; None where none is shorter."""
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    return _bias(torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None], dtype)


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

    Grouped heads are folded into the query rows, so keys are never repeated, and one product with the prompt's keys
    serves all rows of the batch.

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
    q = query[0].transpose(0, 1) * scale  # [T, H, hd]
    k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)  # [T, Hkv, hd]
    count, length = layout.n_prompts, layout.prompt_length
    front = layout.prompt_tokens
    outputs: list[Tensor] = []
    if layout.cache is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]  # every family that has this interface numbers its layers
        prompt_k, prompt_v = layout.cache.keys[layer], layout.cache.values[layer]
    else:
        prompt_k, prompt_v = (x[:front].reshape(count, length, *x.shape[1:]) for x in (k, v))
        if layout.record is not None:
            layer = int(module.layer_idx)  # type: ignore[arg-type]
            layout.record.keys[layer], layout.record.values[layer] = prompt_k, prompt_v
    if front:
        outputs.append(_prompt_self_attention(q[:front], prompt_k, prompt_v, softcap))
    for rows in layout.groups:
        outputs.append(_row_attention(q, k, v, prompt_k, prompt_v, layout.prompt_bias, rows, softcap))
    return torch.cat(outputs).unsqueeze(0), None


def _prompt_self_attention(q: Tensor, prompt_k: Tensor, prompt_v: Tensor, softcap: float | None) -> Tensor:
    """Each prompt attends to its own past. ``q [K*P, H, hd]`` -> ``[K*P, H, hd]``."""
    count, length, kv_heads, width = prompt_k.shape
    heads = q.shape[1]
    folded = (
        q.view(count, length, kv_heads, -1, width).permute(0, 2, 3, 1, 4).flatten(2, 3)
    )  # [K, Hkv, G*P, hd]
    scores = _capped(folded @ prompt_k.permute(0, 2, 3, 1), softcap)
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = scores.view(count, kv_heads, -1, length, length).masked_fill(future, float("-inf"))
    mixed = _softmax(scores).flatten(2, 3) @ prompt_v.transpose(1, 2)
    return mixed.view(count, kv_heads, -1, length, width).permute(0, 3, 1, 2, 4).reshape(-1, heads, width)


def _row_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prompt_k: Tensor,
    prompt_v: Tensor,
    bias_of_prompts: Tensor | None,
    rows: Rows,
    softcap: float | None,
) -> Tensor:
    """The rows of one group attend to their prompt and their context. Returns ``[N, H, hd]`` without padding."""
    count, length, kv_heads, width = prompt_k.shape
    n_rows, n_queries = rows.query.shape
    heads = q.shape[1]
    padded = _gather(q, rows.query).view(n_rows, n_queries, kv_heads, -1, width)
    folded = padded.permute(2, 0, 3, 1, 4).flatten(2, 3)  # [Hkv, R, G*Lq, hd]
    row_k = _gather(k, rows.key).permute(2, 0, 3, 1)  # [Hkv, R, hd, Lk]
    row_v = _gather(v, rows.key).permute(2, 0, 1, 3)  # [Hkv, R, Lk, hd]
    scores = (folded @ row_k).view(kv_heads, n_rows, -1, n_queries, row_k.shape[-1])
    scores = _capped(scores, softcap) + rows.bias.to(scores.dtype)
    if not length:
        mixed = _softmax(scores).flatten(2, 3) @ row_v
    else:
        # With one prompt the rows are folded into one product; with several each row takes its own prompt's keys.
        own_k = prompt_k if count == 1 else prompt_k[rows.prompt]  # [1 or R, P, Hkv, hd]
        own_v = prompt_v if count == 1 else prompt_v[rows.prompt]
        queries = folded.flatten(1, 2).unsqueeze(1) if count == 1 else folded  # [Hkv, 1 or R, ..., hd]
        to_prompt = _capped(queries @ own_k.permute(2, 0, 3, 1), softcap)
        to_prompt = to_prompt.view(kv_heads, n_rows, -1, n_queries, length)
        if bias_of_prompts is not None:
            to_prompt = to_prompt + bias_of_prompts[rows.prompt][:, None, None, :].to(scores.dtype)
        weights = _softmax(torch.cat([to_prompt, scores], dim=-1)).flatten(2, 3)  # [Hkv, R, G*Lq, P + Lk]
        on_prompt = weights[..., :length]
        on_prompt = on_prompt.flatten(1, 2).unsqueeze(1) if count == 1 else on_prompt
        mixed = weights[..., length:] @ row_v + (on_prompt @ own_v.permute(2, 0, 1, 3)).view(folded.shape)
    unfolded = mixed.view(kv_heads, n_rows, -1, n_queries, width).permute(1, 3, 0, 2, 4)
    return unfolded.reshape(n_rows * n_queries, heads, width).index_select(0, rows.unpad)


def _gather(tokens: Tensor, places: Tensor) -> Tensor:
    """``tokens [T, ...]`` at ``places [R, L]`` -> ``[R, L, ...]``."""
    return tokens.index_select(0, places.flatten()).view(*places.shape, *tokens.shape[1:])


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where allowed, -inf elsewhere; ``[R, Lq, Lk] -> [R, 1, Lq, Lk]``, ``[K, P]`` stays."""
    bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, float("-inf"))
    return bias.unsqueeze(1) if allowed.dim() == 3 else bias


_LAYOUT: ContextVar[Layout] = ContextVar("spoton_layout")
AttentionInterface.register(ATTENTION_NAME, attention)
