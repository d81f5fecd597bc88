"""The plain engine for decoder-only models: puts the prompt before every row, pads on the right, and runs all of it.

It is the reference for correct results, and the fallback for models that the packed engine does not fit. Speed does
not matter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from spoton.models.engine import Batch, Choice, Generator, Prompts, Scorer, Wanted, label_scores_by_losses
from spoton.models.exactness import tolerance_of
from spoton.models.frozen import FrozenModel
from spoton.models.generation import generated
from spoton.shapes import Float

# Rotary positions whose frequencies depend on the longest row of a batch.
_CHANGING_ROPES = ("longrope", "dynamic")


def longest_exact(network: PreTrainedModel) -> int | None:
    """Returns the longest sequence, prompt included, in which every token sees all earlier ones at the same positions.

    Longer sequences meet sliding windows, chunked attention or rotary positions that change with length. None if the
    model has none of these.
    """
    config = network.config.get_text_config()
    limits = [getattr(config, "attention_chunk_size", None), _rope_limit(config)]
    if getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if isinstance(limit, int)), default=None)


def _rope_limit(config: Any) -> int | None:
    """Returns the length up to which rotary positions are the same for all rows of a batch; None if always."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if (rope.get("rope_type") or rope.get("type")) not in _CHANGING_ROPES:
        return None
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    return int(original or config.max_position_embeddings)


class ConcatenationEngine:
    """Runs prompts by concatenation, exactly as in the formula: `[P; X]` for each row.

    Args:
        model: The frozen model.
    """

    name = "concatenation"
    repeats_prompts = True
    choice: Choice | None = None

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self._rope_limit = _rope_limit(model.network.config.get_text_config())

    def losses(self, prompts: Prompts, batch: Batch) -> Float[Tensor, " {len(batch)}"]:
        """Returns losses `[B]`; see `Engine.losses`."""
        if len(batch) > 1 and self._changes_positions(prompts, batch):
            return torch.cat([self.losses(prompts, one) for one in _alone(batch)])
        texts = [[*i, *t[:-1]] for i, t in zip(batch.inputs, batch.targets, strict=True)]
        embedded, mask, positions = self._concatenated(prompts, texts, batch.rows, left=False)
        logits = self.model.network(
            inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits
        losses = []
        for b, target in enumerate(batch.targets):
            end = int(mask[b].sum())
            likelihood = torch.log_softmax(logits[b, end - len(target) : end].float(), dim=-1)
            losses.append(-likelihood.gather(1, torch.tensor(target, device=logits.device)[:, None]).sum())
        return torch.stack(losses)

    def label_scores(
        self, prompts: Prompts, batch: Batch, labels: Sequence[Sequence[int]]
    ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
        """Returns scores `[B, C]`; see `Engine.label_scores`."""
        return label_scores_by_losses(self, prompts, batch, labels)

    def scorer(self, prompts: Prompts) -> Scorer:
        """See `Engine.scorer`; every label takes its own pass."""

        @torch.no_grad()
        def score(
            batch: Batch, labels: Sequence[Sequence[int]]
        ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
            passes = [Batch(batch.inputs, [label] * len(batch), batch.prompt) for label in labels]
            return torch.stack([-self.losses(prompts, one) for one in passes], dim=1)

        return score

    def generator(self, prompts: Prompts) -> Generator:
        """See `Engine.generator`. Rows are padded on the left, and the mask hides the padding."""

        @torch.no_grad()
        def generate(
            batch: Batch, max_tokens: int, wanted: Sequence[Wanted] | None = None
        ) -> list[list[int]]:
            if len(batch) > 1 and (
                self._reads_padding or self._changes_positions(prompts, batch, max_tokens)
            ):
                return [
                    generate(one, max_tokens, None if wanted is None else wanted[row : row + 1])[0]
                    for row, one in enumerate(_alone(batch))
                ]
            embedded, mask, _ = self._concatenated(prompts, batch.inputs, batch.rows, left=True)
            end = self.model.end_token
            tokens = generated(
                self.model, wanted, inputs_embeds=embedded, attention_mask=mask, max_new_tokens=max_tokens,
                do_sample=False, eos_token_id=end, pad_token_id=end,
            )  # fmt: skip
            rows = [[int(token) for token in row] for row in tokens]
            return [row[: row.index(end)] if end in row else row for row in rows]

        return generate

    @cached_property
    @torch.no_grad()
    def _reads_padding(self) -> bool:
        """Whether a row changes with the padding on its left, as in RWKV, which knows no mask; attention does."""
        network, prompts = self.model.network, [torch.zeros(0, self.model.dim)] * 2
        if hasattr(network.config.get_text_config(), "num_attention_heads"):
            return False
        last = []
        for texts in ([[0, 1]], [[0, 1], [0, 1, 0, 1, 0]]):
            embedded, mask, _ = self._concatenated(prompts, texts, range(len(texts)), left=True)
            last.append(
                network(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits[0, -1].float()
            )
        alone, padded = last
        return bool(((padded - alone).abs() > tolerance_of(self.model) * (1 + alone.abs())).any())

    def _changes_positions(self, prompts: Prompts, batch: Batch, extra: int = 0) -> bool:
        """Returns whether a row is so long that the positions of the other rows would change."""
        rows = zip(batch.rows, batch.inputs, batch.targets, strict=True)
        longest = max(len(prompts[row]) + len(text) + len(target) for row, text, target in rows) + extra
        return self._rope_limit is not None and longest > self._rope_limit

    def _concatenated(
        self,
        prompts: Prompts,
        texts: Sequence[Sequence[int]],
        rows: Sequence[int],
        *,
        left: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns embeddings `[B, P + L, D]` of prompt and text, their mask and their positions `[B, P + L]`."""
        model = self.model
        embed = model.network.get_input_embeddings()
        sequences = []
        for text, row in zip(texts, rows, strict=True):
            tokens = embed(torch.tensor(list(text), device=model.device))
            sequences.append(torch.cat([prompts[row].to(tokens), tokens]))
        side = "left" if left else "right"
        embedded = pad_sequence(sequences, batch_first=True, padding_side=side)
        ones = [torch.ones(len(s), dtype=torch.long, device=model.device) for s in sequences]
        mask = pad_sequence(ones, batch_first=True, padding_side=side)
        return embedded, mask, (mask.cumsum(1) - 1).clamp(min=0)


def _alone(batch: Batch) -> list[Batch]:
    """Returns every row as its own batch."""
    rows = zip(batch.inputs, batch.targets, batch.rows, strict=True)
    return [Batch([text], [target], [row]) for text, target, row in rows]
