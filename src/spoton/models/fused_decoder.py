"""The packed engine on a GPU: few kernels, no padding, and prompts that no text repeats.

It differs from `PackedEngine` in how a packed row is laid out (`cascade_attention.py` needs where sequences begin, not
blocks) and in the layers that run it (`fused_layers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from spoton.models.cascade_attention import Cascade, Sequences
from spoton.models.engine import Prompts
from spoton.models.frozen import FrozenModel
from spoton.models.fused_layers import fused_layers, last_hidden_states
from spoton.models.packed_decoder import PackedEngine
from spoton.models.packed_rows import Layout, PromptCache, send


class FusedEngine(PackedEngine):
    """Runs K prompts through a decoder-only model on a GPU; see `can_fuse` for which.

    Args:
        model: The frozen model. Its weights become views of joint ones.
    """

    def __init__(self, model: FrozenModel) -> None:
        super().__init__(model, by_hand=True)
        self._layers = fused_layers(model)

    def _layout(
        self,
        lengths: list[int],
        texts: Sequence[Sequence[int]],
        prompt: list[int],
        stems: Sequence[Sequence[Sequence[int]]] | None = None,
        cache: PromptCache | None = None,
        record: PromptCache | None = None,
    ) -> Layout:
        """Lays out prompts, texts and, after every text, the label stems that continue it."""
        if not self._by_hand_now:
            return super()._layout(lengths, texts, prompt, stems, cache, record)
        branches = [[len(stem) for stem in own] for own in stems or [()] * len(texts)]
        return lay_out_sequences(lengths, list(map(len, texts)), prompt, branches, cache, record)

    def _hidden(
        self,
        prompts: Prompts,
        texts: Sequence[Sequence[int]],
        layout: Layout,
        places: list[int],
    ) -> Tensor:
        """Returns last hidden states `[N, D]` at N places of the packed row."""
        found = layout.cascade
        if found is None:
            return super()._hidden(prompts, texts, layout, places)
        device, body = self.model.device, self.model.network.base_model
        seen = [] if found.seen is None else [found.seen]
        wanted, positions, *rest = send(
            [torch.tensor(places, dtype=torch.long), layout.position_ids, *seen], device
        )
        calls = [found.own] if found.shared is None else [found.own, found.shared]
        ends = iter(send([part for call in calls for part in (call.queries, call.keys)], device))
        own, *shared = [replace(call, queries=next(ends), keys=next(ends)) for call in calls]
        there = replace(found, own=own, seen=rest[0] if rest else None, shared=shared[0] if shared else None)
        embedded = self._embedded(prompts, texts, layout)
        return last_hidden_states(
            body,
            self._layers,
            embedded,
            positions,
            there,
            wanted,
            layout.prompts,
            cache=layout.cache,
            record=layout.record,
        )


def lay_out_sequences(
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    prompt: Sequence[int],
    branches: Sequence[Sequence[int]],
    cache: PromptCache | None = None,
    record: PromptCache | None = None,
) -> Layout:
    """Lays out prompts and texts for `cascade_attention.py`: texts of a prompt are neighbours.

    Args:
        prompt_lengths: Tokens of each prompt (K of them).
        lengths: Tokens of each text.
        prompt: Index of each text's prompt.
        branches: Tokens of each branch that continues each text; a length of 0 means that the branch is absent.
        cache: As in `Layout`.
        record: As in `Layout`.
    """
    ends = list(accumulate(prompt_lengths, initial=0))
    prompts = tuple(range(start, stop) for start, stop in pairwise(ends))
    in_row = ends[-1] if cache is None else 0
    # Sequences as (queries, keys, first position); pieces of keys as (place, tokens).
    sequences = [(n, n, 0) for n in prompt_lengths if n] if cache is None else []
    pieces = [(own.start, len(own)) for own in prompts if own] if cache is None else []
    # FlashAttention gives no log-sum-exp over no keys, so texts without a prompt come first and meet none.
    order = sorted(range(len(lengths)), key=lambda row: (prompt_lengths[prompt[row]] > 0, prompt[row]))
    starts, behind, place, first = [0] * len(lengths), [0] * len(prompt_lengths), in_row, in_row
    for row in order:
        owner, length = prompt[row], lengths[row]
        before = prompt_lengths[owner]
        starts[row], start = place, place
        sequences.append((length, length, before))
        pieces.append((place, length))
        place += length
        for n in filter(None, branches[row]):
            sequences.append((n, length + n, before + length))
            pieces += [(start, length), (place, n)]
            place += n
        if before:
            behind[owner] += place - start
        else:
            first = place
    queries, keys, positions = zip(*sequences, strict=True)
    has_prompt = [k for k, n in enumerate(prompt_lengths) if n]
    shared = (
        Sequences.of([behind[k] for k in has_prompt], [prompt_lengths[k] for k in has_prompt])
        if has_prompt
        else None
    )
    cascade = Cascade(
        own=Sequences.of(queries, keys),
        seen=_runs_of(*zip(*pieces, strict=True)) if len(pieces) > len(sequences) else None,
        shared=shared,
        prompts=in_row,
        first=first,
    )
    return Layout(
        blocks=(), prompts=prompts, order=tuple(order), starts=tuple(starts),
        position_ids=_runs_of(positions, queries)[None], cache=cache, record=record, cascade=cascade,
    )  # fmt: skip


def _runs_of(firsts: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Returns `first, first + 1, ...` for each run, one after the other: `[sum of counts]`.

    Args:
        firsts: First number of each run.
        counts: Numbers in each run.
    """
    sizes = torch.tensor(counts)
    ends = sizes.cumsum(0)
    shifts = torch.tensor(firsts) - (ends - sizes)
    return torch.arange(int(ends[-1])) + torch.repeat_interleave(shifts, sizes)
