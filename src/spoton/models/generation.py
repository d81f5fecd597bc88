"""Greedy continuation of texts after prompts whose keys and values are known: every step runs one token per row.

The packed engine computes the keys and values of the prompts once for any number of batches. Here they become
transformers' own cache. Everything is padded on the left, where the mask hides it. This file does not decide when the
cache may be used, beyond the numerical check in `is_exact`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList

from spoton.errors import ModelError
from spoton.models.engine import Batch, Wanted
from spoton.models.exactness import tolerance_of
from spoton.models.frozen import FrozenModel
from spoton.models.packed_rows import PromptCache
from spoton.models.target_loss import head_of
from spoton.shapes import Float, Int


class Continuation:
    """Texts of one batch after their prompts, read up to some token.

    Args:
        model: The frozen model.
        known: Keys and values of the prompts.
        batch: Rows that name their prompts; their texts are not read yet.
    """

    def __init__(self, model: FrozenModel, known: PromptCache, batch: Batch) -> None:
        self._model = model
        self._head = head_of(model.network)
        pairs = known.entries
        layers = sorted({layer for layer, _ in pairs})
        lengths = torch.tensor([pairs[layers[0], row][0].shape[1] for row in batch.rows])
        width = int(lengths.max())
        places = torch.arange(width)
        self._mask = (places >= width - lengths[:, None]).long().to(model.device)
        self._cache = DynamicCache()
        for layer in layers:
            keys, values = ([pairs[layer, row][which] for row in batch.rows] for which in (0, 1))
            self._cache.update(_stacked(keys, width), _stacked(values, width), layer)

    def read(self, tokens: Int[Tensor, "B N"], real: Int[Tensor, "B N"]) -> Float[Tensor, "B V"]:
        """Reads tokens `[B, N]`, of which `real` are not padding; returns logits `[B, V]` of the next token."""
        self._mask = torch.cat([self._mask, real], dim=1)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        network = self._model.network
        options = {
            "inputs_embeds": network.get_input_embeddings()(tokens), "attention_mask": self._mask,
            "position_ids": positions, "past_key_values": self._cache, "use_cache": True,
        }  # fmt: skip
        if self._head is None:
            return network(**options, logits_to_keep=1).logits[:, -1]  # type: ignore[no-any-return]
        # transformers would multiply a slice of a long text by a copy of the output matrix for every row.
        return self._head(network.base_model(**options).last_hidden_state[:, -1])

    def read_texts(self, texts: Sequence[Sequence[int]]) -> Float[Tensor, "{len(texts)} V"]:
        """Reads a text for every row, padded on the left, and returns the logits `[B, V]` after each; see `read`."""
        device = self._model.device
        rows = [torch.tensor(list(text), device=device) for text in texts]
        tokens = pad_sequence(rows, batch_first=True, padding_side="left")
        real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        return self.read(tokens, real)

    def keep(self, rows: Sequence[int]) -> None:
        """Continues with these rows only."""
        chosen = torch.tensor(list(rows), device=self._model.device)
        self._mask = self._mask[chosen]
        self._cache.batch_select_indices(chosen)


class _MoreWanted(StoppingCriteria):
    """Ends the rows that want no more tokens; transformers asks after every token."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted, self._count = wanted, 0

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        self._count += 1
        return torch.tensor([not more(self._count) for more in self._wanted], device=input_ids.device)


def generated(
    model: FrozenModel, wanted: Sequence[Wanted] | None = None, **options: Any
) -> Int[Tensor, "B N"]:
    """Returns the output of transformers' own generation for `options`: `[B, N]` tokens.

    Args:
        model: The frozen model.
        wanted: See `Generator`.
        options: Options of `generate`.

    Raises:
        ModelError: The architecture cannot generate from embeddings, so not from a soft prompt.
    """
    if wanted is not None:
        options["stopping_criteria"] = StoppingCriteriaList([_MoreWanted(wanted)])
    try:
        tokens: Tensor = model.network.generate(**options)  # type: ignore[operator]  # transformers mixes it in
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(
            f"{model.name} ({model.network.config.model_type}) cannot generate text behind a soft prompt: "
            f"{' '.join(str(error).split()).split('. ')[0][:200]}. Give the task a closed set of labels, which are "
            "ranked (--labels), or choose another model."
        ) from error
    return tokens


@torch.no_grad()
def continue_greedily(
    model: FrozenModel,
    known: PromptCache,
    batch: Batch,
    max_tokens: int,
    wanted: Sequence[Wanted] | None = None,
) -> list[list[int]]:
    """Appends the most likely token up to `max_tokens` times; a row that ended costs nothing more.

    Args:
        model: The frozen model.
        known: Keys and values of the prompts.
        batch: Texts to continue.
        max_tokens: Largest number of tokens of one continuation.
        wanted: See `Generator`.

    Returns:
        Tokens of every row, cut before the end token.
    """
    found: list[list[int]] = [[] for _ in batch.inputs]
    rows = list(range(len(batch)))
    text = Continuation(model, known, batch)
    logits = text.read_texts(batch.inputs)
    for n in range(max_tokens):
        tokens = logits.argmax(dim=-1)
        chosen = tokens.tolist()
        open_rows = [b for b, token in enumerate(chosen) if token != model.end_token]
        for b in open_rows:
            found[rows[b]].append(chosen[b])
        if wanted is not None:
            open_rows = [b for b in open_rows if wanted[rows[b]](n + 1)]
        if not open_rows or n + 1 == max_tokens:
            break
        if len(open_rows) < len(rows):
            text.keep(open_rows)
            rows = [rows[b] for b in open_rows]
        following = tokens[open_rows, None]
        logits = text.read(following, torch.ones_like(following))
    return found


@torch.no_grad()
def is_exact(
    model: FrozenModel, known: PromptCache, batch: Batch, expected: Float[Tensor, " {len(batch)}"]
) -> bool:
    """Returns whether targets read token by token after cached prompts have the losses `[B]` of a full pass.

    Args:
        model: The frozen model.
        known: Keys and values of the prompts.
        batch: Rows whose targets have the same number of tokens.
        expected: Losses of the rows by concatenation.
    """
    try:
        text = Continuation(model, known, batch)
        logits = text.read_texts(batch.inputs)
        losses = torch.zeros_like(expected)
        for column in torch.tensor(batch.targets, device=model.device).T:
            losses += functional.cross_entropy(logits.float(), column, reduction="none")
            logits = text.read(column[:, None], torch.ones_like(column[:, None]))
    except Exception:  # an unknown cache may raise anything; it cannot be used
        return False
    tolerance = tolerance_of(model)
    return bool(torch.allclose(losses, expected, rtol=tolerance, atol=tolerance))


def _stacked(parts: Sequence[Tensor], width: int) -> Tensor:
    """Returns keys or values `[Hkv, P_k, hd]` of each row's prompt, padded on the left: `[B, Hkv, P, hd]`."""
    return torch.stack([functional.pad(part, (0, 0, width - part.shape[1], 0)) for part in parts])
