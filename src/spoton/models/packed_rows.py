"""The layout of a packed row: many texts and their soft prompts in one row of tokens, without padding.

The packed row is `[prompt 0 | ... | prompt K-1 | text, its branches | text, its branches | ...]`. Under causal
attention the prompt's keys and values do not depend on the text after it. So every prompt is in the row once, however
many texts follow it, and the gradients of all texts add up in it. Branches are label words that continue a text
without seeing each other. Attention (`packed_attention.py`) processes sequences of similar length together, as a block.
This file handles positions only: no losses, no labels, no tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spoton.models.cascade_attention import Cascade

# Numbers of 16 bits in 32 bytes.
_ALIGNED = 16


@dataclass(frozen=True)
class BlockBounds:
    """Where a block ends.

    Attributes:
        pairs: The fixed cost of a block, in pairs of tokens that attend to each other: a longer sequence joins a block
            as long as padding adds fewer pairs than this.
        tokens: A block ends here even if all its sequences have the same length, since its temporaries grow with it.
    """

    pairs: int
    tokens: int


# Between 1,500 and 24,000 pairs a step takes the same time within 3 %; a block for each length, or one for all, is 4 to
# 7 % slower (SmolLM2-135M on one core, batches of 4 and 32 texts of 10 to 72 tokens, training and scoring). From 256 to
# 2048 tokens the time is the same.
ON_PROCESSOR = BlockBounds(6000, 2048)
# Starting the kernels of a block took 0.8 ms a layer beside an H100, which does billions of products meanwhile: ten
# blocks a step (200,000 pairs, 2048 tokens) kept it busy for a fifth of the time.
ON_GPU = BlockBounds(2_000_000, 65_536)


@dataclass(frozen=True)
class Block:
    """Neighbouring sequences of the packed row that attend in one product, padded to the longest of them.

    A sequence is a prompt, or a text with its branches; all in a block have equally many prompt tokens before them.

    Attributes:
        start: Packed place of the first token.
        stop: Packed place after the last token.
        prompts: `[n]` index of the prompt before each sequence, in ascending order; None for prompts themselves.
        before: P, tokens of the prompt before each sequence; 0 for prompts themselves.
        places: `[n, L]` packed place of each token; padding is always at the end and repeats the first place.
        seen: `[n, P + L]` the same after the places of the prompt; with a cache, whose keys precede those of the row,
            all places are shifted by the number of cached keys.
        real: `[N]` place in the `n * L` of each token from `start` to `stop`, in order.
        padding: `[n * L - N]` places of padding in the `n * L`.
        bias: `[1 or n, L, P + L]` 0 where a token may attend (always to its prompt), -inf elsewhere, in the type of the
            scores. It is added to whole rows of scores: adding it to a part of each row takes three times as long.
    """

    start: int
    stop: int
    prompts: tuple[int, ...] | None
    before: int
    places: Tensor
    seen: Tensor
    real: Tensor
    padding: Tensor
    bias: Tensor


@dataclass
class PromptCache:
    """Keys and values of K prompts: `(layer, prompt)` -> a pair of `[Hkv, P, hd]`."""

    entries: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    tables: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def pairs(self, layer: int, prompts: int) -> list[tuple[Tensor, Tensor]]:
        """Returns keys and values of K prompts in a layer, `[Hkv, P, hd]` each."""
        return [self.entries[layer, number] for number in range(prompts)]

    def table(self, layer: int, prompts: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values of K prompts in a layer as one, `[sum of P, Hkv, hd]` each; joins them once."""
        if layer not in self.tables:
            keys, values = (
                torch.cat(parts, dim=1).transpose(0, 1).contiguous()
                for parts in zip(*self.pairs(layer, prompts), strict=True)
            )
            self.tables[layer] = keys, values
        return self.tables[layer]


@dataclass(frozen=True)
class Layout:
    """The places of everything in one packed row.

    Attributes:
        blocks: Which tokens attend to which. Together they cover the row, in order.
        prompts: Packed places of every prompt. With a cache the prompts are not in the row, and these are their places
            before it.
        order: Rows (texts) in packed order.
        starts: Packed place of the first token of every row, by row; its branches follow the text.
        position_ids: `[1, T]` position of every packed token in its own sequence, prompt included.
        cache: The prompts' keys and values to read; with a cache, the prompts are not in the row.
        record: Where to write the prompts' keys and values.
        longest: Tokens of the longest sequence with its prompt.
        cascade: The attention in `cascade_attention.py`'s form, on the CPU; then there are no blocks.
        indices: What attention derives from the blocks, once for all layers with the same number of heads.
        elsewhere: This layout on devices other than the one it was built on.
    """

    blocks: tuple[Block, ...]
    prompts: tuple[range, ...]
    order: tuple[int, ...]
    starts: tuple[int, ...]
    position_ids: Tensor
    cache: PromptCache | None = None
    record: PromptCache | None = None
    longest: int = 0
    cascade: Cascade | None = None
    indices: dict[tuple[int, int], Any] = field(default_factory=dict)
    elsewhere: dict[torch.device, Layout] = field(default_factory=dict)

    def on(self, device: torch.device) -> Layout:
        """Returns the same layout on a device; copies it there once."""
        if self.position_ids.device == device:
            return self
        if device not in self.elsewhere:
            parts = [[block.places, block.seen, block.real, block.padding] for block in self.blocks]
            sent = iter(send([self.position_ids, *(one for part in parts for one in part)], device))
            position_ids = next(sent)
            biases = [
                part[..., : block.bias.shape[-1]]
                for part, block in zip(
                    send([_aligned(one.bias) for one in self.blocks], device), self.blocks, strict=True
                )
            ]
            blocks = tuple(
                replace(
                    block, places=next(sent), seen=next(sent), real=next(sent), padding=next(sent), bias=bias
                )
                for block, bias in zip(self.blocks, biases, strict=True)
            )
            self.elsewhere[device] = replace(
                self, blocks=blocks, position_ids=position_ids, indices={}, elsewhere={}
            )
        return self.elsewhere[device]


def _aligned(bias: Tensor) -> Tensor:
    """Returns `[n, L, S]` with padded ends, so that every row of it begins where a GPU's fused attention can read it.

    Rows that begin between multiples of 16 bytes fail there (cuDNN: "mha_graph.execute ... is_good", or "misaligned
    address"). Parts of one copy follow each other, so the whole is a multiple as well.
    """
    return functional.pad(bias, (0, -bias.shape[-1] % _ALIGNED))


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Returns tensors of one type on a device, sent in a single copy that the CPU does not wait for.

    Args:
        tensors: Tensors `[...]` on the CPU.
        device: The device to copy them to.
    """
    if device.type == "cpu":
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    if device.type == "cuda":
        flat = flat.pin_memory()
    sizes = [tensor.numel() for tensor in tensors]
    parts = torch.split(flat.to(device, non_blocking=True), sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def lay_out(
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    prompt: Sequence[int],
    dtype: torch.dtype,
    *,
    branches: Sequence[Sequence[int]] | None = None,
    cache: PromptCache | None = None,
    record: PromptCache | None = None,
    bounds: BlockBounds = ON_PROCESSOR,
) -> Layout:
    """Lays out prompts and texts.

    Args:
        prompt_lengths: Tokens of each prompt (K of them).
        lengths: Tokens of each text.
        prompt: Index of each text's prompt.
        dtype: Type of the attention scores, for the bias.
        branches: Tokens of each branch that continues each text; a length of 0 means that the branch is absent.
        cache: As in `Layout`.
        record: As in `Layout`.
        bounds: Where blocks end.
    """
    ends = list(accumulate(prompt_lengths, initial=0))
    prompts = tuple(range(start, stop) for start, stop in pairwise(ends))
    blocks: list[Block] = []
    positions: list[Tensor] = []
    if cache is None:
        blocks.extend(_prompt_blocks(prompts, dtype, bounds))
        positions.extend(torch.arange(length) for length in prompt_lengths)
    place = ends[-1] if cache is None else 0
    own_length = [prompt_lengths[k] for k in prompt]
    branches = [()] * len(lengths) if branches is None else branches
    sizes = [length + sum(own) for length, own in zip(lengths, branches, strict=True)]
    # Rows of similar length are next to each other, so that a block pads little. A block takes prompts of one length
    # only, since its keys are one tensor.
    rows = sorted(range(len(lengths)), key=lambda row: (own_length[row], lengths[row]))
    order: list[int] = []
    starts = [0] * len(lengths)
    for run in _runs([(own_length[row], sizes[row]) for row in rows], bounds):
        members = sorted((rows[i] for i in run), key=lambda row: prompt[row])
        before = own_length[members[0]]
        owners = tuple(prompt[row] for row in members)
        texts, tails = [lengths[row] for row in members], [branches[row] for row in members]
        moved = 0 if cache is None else ends[-1]
        blocks.append(_block(place, prompts, owners, texts, tails, dtype, moved=moved))
        for row in members:
            starts[row] = place
            positions.append(torch.arange(lengths[row]) + before)
            # Every branch begins at the position after the text, as if there were no others.
            positions.extend(torch.arange(n) + before + lengths[row] for n in branches[row] if n)
            place += sizes[row]
        order.extend(members)
    return Layout(
        blocks=tuple(blocks), prompts=prompts, order=tuple(order), starts=tuple(starts),
        position_ids=torch.cat(positions)[None], cache=cache, record=record,
        longest=max([*prompt_lengths, *map(_longest, own_length, lengths, branches)]),
    )  # fmt: skip


def _prompt_blocks(prompts: Sequence[range], dtype: torch.dtype, bounds: BlockBounds) -> Iterator[Block]:
    in_row = [own for own in prompts if own]
    for run in _runs([(0, len(own)) for own in in_row], bounds):
        sizes = [len(in_row[k]) for k in run]
        yield _block(in_row[run[0]].start, tuple(prompts), None, sizes, [()] * len(sizes), dtype, moved=0)


def _longest(before: int, length: int, branches: Sequence[int]) -> int:
    """Returns the tokens of a text with its prompt and its longest branch."""
    return before + length + max(branches, default=0)


def _runs(sizes: Sequence[tuple[int, int]], bounds: BlockBounds) -> Iterator[range]:
    """Cuts sequences into blocks.

    Args:
        sizes: For each sequence, the tokens of its prompt and its own tokens.
        bounds: Where blocks end.
    """
    start = longest = real = 0
    for i, (before, size) in enumerate(sizes):
        longest, real = max(longest, size), real + size * (before + size)
        n = i + 1 - start
        padding = n * longest * (before + longest) - real
        if n > 1 and (before != sizes[start][0] or padding > bounds.pairs or n * longest > bounds.tokens):
            yield range(start, i)
            start, longest, real = i, size, size * (before + size)
    if sizes:
        yield range(start, len(sizes))


def _block(
    start: int,
    prompts: Sequence[range],
    owners: tuple[int, ...] | None,
    lengths: Sequence[int],
    branches: Sequence[Sequence[int]],
    dtype: torch.dtype,
    *,
    moved: int,
) -> Block:
    """Returns a block of consecutive sequences from `start` on, whose keys are `moved` after their places."""
    sizes = torch.tensor(lengths) + torch.tensor([sum(own) for own in branches])
    stops = start + sizes.cumsum(0)
    firsts = (stops - sizes)[:, None]
    columns = torch.arange(int(sizes.max()))
    inside = columns < sizes[:, None]
    places = torch.where(inside, firsts + columns, firsts)
    before = 0 if owners is None else len(prompts[owners[0]])
    own = torch.tensor([prompts[k].start for k in owners or ()])[:, None] + torch.arange(before)
    hidden = functional.pad(~_allowed(lengths, len(columns), branches), (before, 0), value=False)
    return Block(
        start=start,
        stop=start + int(sizes.sum()),
        prompts=owners,
        before=before,
        places=places,
        seen=torch.cat([own, places + moved], dim=1) if before else places + moved,
        real=inside.flatten().nonzero()[:, 0],
        padding=inside.logical_not().flatten().nonzero()[:, 0],
        bias=torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf")),
    )


def _allowed(lengths: Sequence[int], longest: int, branches: Sequence[Sequence[int]]) -> Tensor:
    """Returns `[1 or n, L, L]` which tokens of a text and its branches see which.

    Padding comes last, so no token sees it. What it sees does not matter, as long as it sees something.
    """
    past = torch.ones(1, longest, longest, dtype=torch.bool).tril()
    if not any(map(any, branches)):
        return past
    numbers = torch.zeros(len(lengths), longest, dtype=torch.long)  # 0: the text
    for row, (length, own) in enumerate(zip(lengths, branches, strict=True)):
        behind = torch.repeat_interleave(torch.arange(1, len(own) + 1), torch.tensor(own, dtype=torch.long))
        numbers[row, length : length + len(behind)] = behind
    return past & ((numbers[:, None] == 0) | (numbers[:, None] == numbers[:, :, None]))
