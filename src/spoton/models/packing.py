"""The layout of a packed row: many texts and their soft prompts in one row of tokens, without padding.

The packed row is ``[prompt 0 | ... | prompt K-1 | text, its branches | text, its branches | ...]``. Under causal
attention the prompt's keys and values do not depend on the text behind it, so every prompt stands in the row once,
however many texts follow it, and gradients of all texts meet in it. Branches are label words that continue a text
without seeing each other. Texts are ordered by prompt and cut into chunks of whole texts; attention (``attention.py``)
runs one dense product a chunk. This file deals in positions only: no losses, no labels, no tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# A chunk takes texts until it has this many tokens: fewer, larger products cost less overhead, but two texts of one
# chunk compute scores for each other that the mask throws away. Between 64 and 160 a step takes the same time to 3 %
# (one core, P = 100, batches of 16 and 32 texts of 24 tokens on average); 400 is 10 % slower.
CHUNK_TOKENS = 128


@dataclass(frozen=True)
class Chunk:
    """Neighbouring tokens of the packed row that attend to one prompt and to some of each other.

    Attributes:
        start: Packed place of the first token.
        stop: Packed place behind the last token.
        prompt: Index of the prompt in front of these tokens; None where they are themselves a prompt.
        bias: ``[N, P + N]`` 0 where attention is allowed, -inf elsewhere, in the type of the scores.
    """

    start: int
    stop: int
    prompt: int | None
    bias: Tensor


@dataclass
class PromptCache:
    """Keys and values of K prompts: ``(layer, prompt)`` -> a pair of ``[Hkv, P, hd]``."""

    entries: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where everything stands in one packed row.

    Attributes:
        chunks: What attends to what. Together they cover the row, in order.
        prompts: Chunk of every prompt; empty where the prompts' keys come from ``cache``.
        order: Rows (texts) in the order in which they are packed.
        starts: Packed place of the first token of every row, by row; its branches stand behind the text.
        position_ids: ``[1, T]`` position of every packed token in its own sequence, prompt included.
        cache: Where the prompts' keys and values are read from; with one, the prompts are not in the row.
        record: Where the prompts' keys and values are to be written.
    """

    chunks: tuple[Chunk, ...]
    prompts: tuple[Chunk, ...]
    order: tuple[int, ...]
    starts: tuple[int, ...]
    position_ids: Tensor
    cache: PromptCache | None = None
    record: PromptCache | None = None


def lay_out(
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    prompt: Sequence[int],
    dtype: torch.dtype,
    *,
    branches: Sequence[int] = (),
    cache: PromptCache | None = None,
    record: PromptCache | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Layout:
    """Lays out prompts and texts.

    Args:
        prompt_lengths: Tokens of each prompt (K of them).
        lengths: Tokens of each text.
        prompt: Index of each text's prompt.
        dtype: Type of the attention scores, for the bias.
        branches: Tokens of each branch that continues every text; a length of 0 is a branch that is not there.
        cache: As in `Layout`.
        record: As in `Layout`.
        chunk_tokens: See `CHUNK_TOKENS`; a longer text is a chunk of its own.
    """
    place = 0
    own: list[Chunk] = []
    positions: list[Tensor] = []
    if cache is None:
        for length in prompt_lengths:
            if length:
                own.append(Chunk(place, place + length, None, _bias(_causal(length), 0, dtype)))
                positions.append(torch.arange(length))
            else:
                own.append(Chunk(place, place, None, torch.zeros(0, 0, dtype=dtype)))
            place += length
    order = sorted(range(len(lengths)), key=lambda row: prompt[row])
    starts = [0] * len(lengths)
    chunks: list[Chunk] = []
    waiting: list[int] = []

    def close() -> None:
        """Makes a chunk of the waiting rows, which share a prompt."""
        nonlocal place
        if waiting:
            before = prompt_lengths[prompt[waiting[0]]]
            blocks = [_tree(lengths[row], branches) for row in waiting]
            allowed = torch.block_diag(*blocks).bool()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            stop = place + allowed.shape[0]
            chunks.append(Chunk(place, stop, prompt[waiting[0]], _bias(allowed, before, dtype)))
            place = stop
            waiting.clear()

    tokens = 0
    for row in order:
        size = lengths[row] + sum(branches)
        if waiting and (prompt[row] != prompt[waiting[0]] or tokens + size > chunk_tokens):
            close()
        tokens = tokens + size if waiting else size
        starts[row] = place + tokens - size
        before = prompt_lengths[prompt[row]]
        positions.append(torch.arange(lengths[row]) + before)
        positions.extend(torch.arange(n) + before + lengths[row] for n in branches if n)
        waiting.append(row)
    close()
    return Layout(
        chunks=(*(chunk for chunk in own if chunk.stop > chunk.start), *chunks),
        prompts=tuple(own),
        order=tuple(order),
        starts=tuple(starts),
        position_ids=torch.cat(positions)[None],
        cache=cache,
        record=record,
    )


def _causal(length: int) -> Tensor:
    """``[N, N]`` true on and below the diagonal."""
    return torch.ones(length, length, dtype=torch.bool).tril()


def _tree(length: int, branches: Sequence[int]) -> Tensor:
    """``[N, N]`` which tokens of a text and its branches see which."""
    total = length + sum(branches)
    allowed = torch.zeros(total, total, dtype=torch.bool)
    allowed[:, :length] = True
    allowed[:length, :length] = _causal(length)
    start = length
    for n in branches:
        allowed[start : start + n, start : start + n] = _causal(n)
        start += n
    return allowed


def _bias(allowed: Tensor, before: int, dtype: torch.dtype) -> Tensor:
    """``[N, before + N]`` 0 where allowed and for the prompt, -inf elsewhere."""
    bias = torch.zeros(allowed.shape[0], before + allowed.shape[1], dtype=dtype)
    bias[:, before:].masked_fill_(~allowed, float("-inf"))
    return bias
