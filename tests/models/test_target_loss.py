"""Losses of target tokens without a large logit matrix: values, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from spoton.models import target_loss
from spoton.models.target_loss import head_of, target_losses
from spoton.tuning.microbatches import count_kept
from tests.tiny import VOCABULARY, WIDTH, draw, tiny


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_losses_and_gradients_are_those_of_all_logits(
    family: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_loss, "_LOGITS_AT_ONCE", at_once * VOCABULARY)
    head = head_of(tiny(family).network)
    assert head is not None
    hidden, wanted = draw(5, WIDTH, scale=1.0).requires_grad_(), torch.tensor([3, 1, 4, 1, 5])
    found = target_losses(hidden, wanted, head, VOCABULARY)
    expected = functional.cross_entropy(head(hidden), wanted, reduction="none")
    torch.testing.assert_close(found, expected)
    weights = torch.arange(1.0, 6.0)
    ours, theirs = (torch.autograd.grad((losses * weights).sum(), hidden)[0] for losses in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_nothing_as_large_as_the_vocabulary_is_kept() -> None:
    network = tiny("llama").network
    head = head_of(network)
    assert head is not None
    with count_kept(network) as kept:
        losses = target_losses(
            draw(50, WIDTH).requires_grad_(), torch.zeros(50, dtype=torch.long), head, VOCABULARY
        )
    assert losses.requires_grad and 0 < kept.bytes <= 2 * 50 * WIDTH * 4 < 50 * VOCABULARY * 4


def test_logits_that_are_scaled_are_left_to_the_model() -> None:
    network = tiny("llama").network
    network.config.logits_scaling = 8.0  # as Granite has
    assert head_of(network) is None
