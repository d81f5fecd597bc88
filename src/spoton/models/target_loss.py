"""Losses of target tokens from hidden states, in memory that does not grow with the number of targets.

Logits are computed for a few positions at a time and turned into losses and gradients immediately, since a frozen
output layer needs no gradient. Nothing as large as the vocabulary is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from spoton.shapes import Float, Int

# Logits computed at once; about 16 MB in float32, and products of 85 rows with a vocabulary of 49,152.
_LOGITS_AT_ONCE = 2**22

OutputHead = Callable[[Float[Tensor, "N D"]], Float[Tensor, "N V"]]
"""Maps hidden states `[N, D]` to logits `[N, V]`."""


def head_of(network: PreTrainedModel) -> OutputHead | None:
    """Returns the function from last hidden states of `network` to logits; None if its steps are not known here."""
    config = network.config.get_text_config()
    output = network.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    if output is None or any(hasattr(config, name) for name in ("logit_scale", "logits_scaling")):
        return None
    cap = getattr(config, "final_logit_softcapping", None)

    def head(hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Returns logits, with Gemma 2's cap."""
        logits: Tensor = output(hidden)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return head


def target_losses(
    hidden: Float[Tensor, "N D"], wanted: Int[Tensor, " N"], head: OutputHead, vocabulary: int
) -> Float[Tensor, " N"]:
    """Returns the negative log-likelihood of each target token: `[N]` float32, in nats.

    Args:
        hidden: `[N, D]` last hidden states at the positions that predict the targets.
        wanted: `[N]` target tokens.
        head: See `head_of`.
        vocabulary: V, to bound memory.
    """
    found: Tensor = _TargetLosses.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        hidden, wanted, head, max(1, _LOGITS_AT_ONCE // vocabulary)
    )
    return found


def log_likelihoods(
    hidden: Float[Tensor, "N D"], tokens: Int[Tensor, " C"], head: OutputHead, vocabulary: int
) -> Float[Tensor, "N C"]:
    """Returns the log-likelihood of each of several tokens at each place: `[N, C]` float32, in nats.

    Args:
        hidden: `[N, D]` last hidden states.
        tokens: `[C]` the tokens.
        head: See `head_of`.
        vocabulary: V, to bound memory.
    """
    parts = []
    for states in torch.split(hidden, max(1, _LOGITS_AT_ONCE // vocabulary)):
        logits = head(states).float()
        parts.append(logits.index_select(1, tokens) - torch.logsumexp(logits, dim=-1, keepdim=True))
    return torch.cat(parts)


class _TargetLosses(torch.autograd.Function):
    """Computes gradients in the forward pass, while the logits exist."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, wanted: Tensor, head: OutputHead, at_once: int) -> Tensor:
        """`[N, D]`, `[N]` -> `[N]`."""
        needed = ctx.needs_input_grad[0]
        losses, gradient = [], []
        for start in range(0, len(hidden), at_once):
            states, targets = hidden[start : start + at_once], wanted[start : start + at_once]
            with torch.set_grad_enabled(needed):
                states = states.detach().requires_grad_(needed)
                loss = functional.cross_entropy(head(states).float(), targets, reduction="none")
                if needed:
                    gradient.append(torch.autograd.grad(loss.sum(), states)[0])
            losses.append(loss.detach())
        if needed:
            ctx.save_for_backward(torch.cat(gradient))
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the stored gradients: each loss depends on its own hidden state only."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None].to(gradient.dtype), None, None, None
