"""The formulas that the engines must equal, written down as plainly as transformers allows: one row, no padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spoton.models import Batch, FrozenModel

# Ragged on purpose: inputs of 1 to 6 tokens, targets of 1 to 3.
INPUTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16], [3, 4]]
TARGETS = [[20], [21, 22], [23], [24, 25, 26]]


def ragged(prompt: Sequence[int] | None = None) -> Batch:
    """Four rows of unlike lengths."""
    return Batch(INPUTS, TARGETS, prompt)


def naive_loss(model: FrozenModel, prompt: Tensor, text: Sequence[int], target: Sequence[int]) -> Tensor:
    """Summed negative log-likelihood of a target: concatenate, full forward, transformers' own loss."""
    embed = model.network.get_input_embeddings()
    if model.is_encoder_decoder:
        embedded = torch.cat([prompt, embed(torch.tensor(text)) * encoder_scale(model)])[None]
        labels = torch.tensor([target])
    else:
        embedded = torch.cat([prompt, embed(torch.tensor([*text, *target]))])[None]
        labels = torch.tensor([[-100] * (len(prompt) + len(text)) + list(target)])
    mean: Tensor = model.network(inputs_embeds=embedded, labels=labels).loss
    return mean * len(target)


def encoder_scale(model: FrozenModel) -> float:
    """What these encoders multiply embedded tokens by, and not embeddings that they are given."""
    scales = model.network.config.model_type in ("pegasus", "marian", "mvp")
    return math.sqrt(model.dim) if scales else 1.0


def naive_losses(model: FrozenModel, prompts: Sequence[Tensor], batch: Batch) -> Tensor:
    """`naive_loss` of every row."""
    rows = zip(batch.inputs, batch.targets, batch.rows, strict=True)
    return torch.stack([naive_loss(model, prompts[row], text, target) for text, target, row in rows])


@torch.no_grad()
def naive_continuation(model: FrozenModel, prompt: Tensor, text: Sequence[int], length: int) -> list[int]:
    """The most likely next token again and again, every time from a full forward pass."""
    embed = model.network.get_input_embeddings()
    found: list[int] = []
    while len(found) < length:
        if model.is_encoder_decoder:
            embedded = torch.cat([prompt, embed(torch.tensor(text)) * encoder_scale(model)])[None]
            start = model.network.config.decoder_start_token_id
            decoded = torch.tensor([[start, *found]])
            logits = model.network(inputs_embeds=embedded, decoder_input_ids=decoded).logits
        else:
            embedded = torch.cat([prompt, embed(torch.tensor([*text, *found]))])[None]
            logits = model.network(inputs_embeds=embedded).logits
        token = int(logits[0, -1].argmax())
        if token == model.end_token:
            break
        found.append(token)
    return found


def assert_equal_losses(found: Tensor, expected: Tensor) -> None:
    """To 1e-5, relative to the size of the losses."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def assert_equal_gradients(found: Tensor | None, expected: Tensor | None) -> None:
    """To 1e-5, relative to the largest entry of the gradient."""
    assert found is not None and expected is not None
    assert found.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
