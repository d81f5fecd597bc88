"""The engine for decoder-only models: prompts once, texts packed behind them, logits at target positions only.

Exact: losses and prompt gradients equal those of concatenating the prompt to every row (``concatenation.py``, against
which the tests compare it). Not here: how tokens attend (``packing.py``) and what is done with the losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spoton.models.concatenation import ConcatenationEngine
from spoton.models.engine import Batch, Scorer
from spoton.models.frozen import FrozenModel
from spoton.models.packing import (
    Layout,
    PromptCache,
    Rows,
    branch_rows,
    packed_attention,
    prompt_bias,
    text_rows,
)


class PackedEngine:
    """Runs K prompts through a decoder-only model without padding and without repeating a prompt.

    Args:
        model: The frozen model.
    """

    name = "packed"

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self._plain = ConcatenationEngine(model)
        config = model.network.config.get_text_config()
        uses_window = getattr(config, "use_sliding_window", True)
        self._window: int | None = getattr(config, "sliding_window", None) if uses_window else None

    def losses(self, prompts: Tensor | Sequence[Tensor], batch: Batch) -> Tensor:
        """See `Engine.losses`."""
        texts = [[*i, *t[:-1]] for i, t in zip(batch.inputs, batch.targets, strict=True)]
        stack, lengths = _stack(prompts)
        if self._exceeds_window(lengths, texts):
            return self._plain.losses(prompts, batch)
        rows, layout = self._layout(stack, lengths, texts, batch.rows)
        ends = torch.tensor([len(text) for text in texts]).cumsum(0).tolist()
        counts = [len(target) for target in batch.targets]
        places = [
            p
            for end, n in zip(ends, counts, strict=True)
            for p in range(rows.start + end - n, rows.start + end)
        ]
        logits = self._logits(stack, texts, layout, places)
        wanted = torch.tensor([token for target in batch.targets for token in target], device=logits.device)
        token_losses = functional.cross_entropy(logits.float(), wanted, reduction="none")
        row = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(counts)).to(logits.device)
        return torch.zeros(len(batch), device=logits.device).index_add(0, row, token_losses)

    @torch.no_grad()
    def scorer(self, prompts: Tensor | Sequence[Tensor]) -> Scorer:
        """See `Engine.scorer`: the keys and values of the prompts are computed here, once."""
        stack, lengths = _stack(prompts)
        plain, cache = self._plain.scorer(prompts), self._remember(stack, lengths)

        def score(batch: Batch, labels: Sequence[Sequence[int]]) -> Tensor:
            if self._exceeds_window(lengths, batch.inputs, max(map(len, labels))):
                return plain(batch, labels)
            return self._label_scores(stack, lengths, cache, batch, labels)

        return score

    @torch.no_grad()
    def _label_scores(
        self,
        stack: Tensor,
        lengths: list[int],
        cache: PromptCache,
        batch: Batch,
        labels: Sequence[Sequence[int]],
    ) -> Tensor:
        """``[B, C]``; the input's tokens run once for all labels, and only labels of several tokens add branches."""
        stems = [list(label[:-1]) for label in labels]
        rows, layout = self._layout(stack, lengths, batch.inputs, batch.rows, stems, cache)
        n_rows = len(batch)
        ends = torch.tensor([len(text) for text in batch.inputs]).cumsum(0) + (rows.start - 1)
        # An input's last place predicts every label's first token; the places of a stem predict the label's rest.
        places: list[int] = ends.tolist()
        tokens: list[int] = []
        owners: list[int] = []
        branch = rows.start + sum(map(len, batch.inputs))
        for b in range(n_rows):
            for c, stem in enumerate(stems):
                places.extend(range(branch, branch + len(stem)))
                tokens.extend(labels[c][1:])
                owners.extend([b * len(labels) + c] * len(stem))
                branch += len(stem)
        packed = [*batch.inputs, *([stem for stem in stems if stem] * n_rows)]
        logits = self._logits(stack, packed, layout, places).float()
        total = torch.logsumexp(logits, dim=-1)
        first = torch.tensor([label[0] for label in labels], device=logits.device)
        scores = logits[:n_rows, first] - total[:n_rows, None]
        if tokens:
            wanted = torch.tensor(tokens, device=logits.device)[:, None]
            rest = logits[n_rows:].gather(1, wanted)[:, 0] - total[n_rows:]
            scores = (
                scores.flatten()
                .index_add(0, torch.tensor(owners, device=logits.device), rest)
                .view_as(scores)
            )
        return scores

    def generate(self, prompts: Tensor | Sequence[Tensor], batch: Batch, max_tokens: int) -> list[list[int]]:
        """See `Engine.generate`; transformers' own generation over the concatenated prompt and text."""
        return self._plain.generate(prompts, batch, max_tokens)

    def _remember(self, stack: Tensor, lengths: list[int]) -> PromptCache:
        """Keys and values of the prompts in every layer."""
        record = PromptCache()
        end = [self.model.end_token]
        _, layout = self._layout(stack, lengths, [end], [0], record=record)
        self._logits(stack, [end], layout, [stack.shape[0] * stack.shape[1]])
        return record

    def _exceeds_window(self, lengths: list[int], texts: Sequence[Sequence[int]], extra: int = 0) -> bool:
        """Whether a row is longer than the model's sliding window, where sharing a prompt would not be exact."""
        return self._window is not None and max(lengths) + max(map(len, texts)) + extra > self._window

    def _layout(
        self,
        stack: Tensor,
        lengths: list[int],
        texts: Sequence[Sequence[int]],
        prompt: list[int],
        stems: Sequence[Sequence[int]] = (),
        cache: PromptCache | None = None,
        record: PromptCache | None = None,
    ) -> tuple[Rows, Layout]:
        """Lays out prompts, texts and, behind every text, the label stems that continue it."""
        dtype = self.model.dtype
        count, longest = stack.shape[:2]
        start = 0 if cache is not None else count * longest
        text_lengths = [len(text) for text in texts]
        with torch.device(self.model.device):
            rows = text_rows(start, text_lengths, prompt, dtype)
            groups = [rows]
            positions = [] if cache is not None else [torch.arange(longest)] * count
            positions += [torch.arange(n) + lengths[p] for n, p in zip(text_lengths, prompt, strict=True)]
            stem_lengths = [len(stem) for stem in stems if stem]
            if stem_lengths:
                parents = [b for b in range(len(texts)) for _ in stem_lengths]
                groups.append(
                    branch_rows(start + sum(text_lengths), rows, parents, stem_lengths * len(texts), dtype)
                )
                for n, p in zip(text_lengths, prompt, strict=True):
                    positions += [torch.arange(m) + lengths[p] + n for m in stem_lengths]
            layout = Layout(
                n_prompts=count,
                prompt_length=longest,
                prompt_bias=prompt_bias(lengths, dtype),
                groups=tuple(groups),
                position_ids=torch.cat(positions)[None],
                cache=cache,
                record=record,
            )
        return rows, layout

    def _logits(
        self, stack: Tensor, texts: Sequence[Sequence[int]], layout: Layout, places: list[int]
    ) -> Tensor:
        """Logits ``[N, V]`` at N places of the packed row."""
        model = self.model
        ids = torch.tensor([token for text in texts for token in text], device=model.device)
        embedded = model.network.get_input_embeddings()(ids)
        if layout.cache is None:
            embedded = torch.cat([stack.flatten(0, 1).to(embedded), embedded])
        keep: dict[str, Any] = {"logits_to_keep": torch.tensor(places, device=model.device)}
        with packed_attention(model.network, layout):
            output = model.network(
                inputs_embeds=embedded[None], position_ids=layout.position_ids, use_cache=False, **keep
            )
        logits: Tensor = output.logits[0]
        if logits.shape[0] != len(places):
            raise NotImplementedError(f"{model.network.config.model_type} ignores logits_to_keep")
        return logits


def _stack(prompts: Tensor | Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """``[K, P, D]`` with shorter prompts padded by zeros, and the true length of each."""
    if isinstance(prompts, Tensor):
        return prompts, [prompts.shape[1]] * prompts.shape[0]
    lengths = [prompt.shape[0] for prompt in prompts]
    longest = max(lengths)
    padded = [functional.pad(prompt, (0, 0, 0, longest - prompt.shape[0])) for prompt in prompts]
    return torch.stack(padded), lengths
