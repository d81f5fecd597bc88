"""Log-likelihoods of given tokens, and the likeliest tokens at their places, a few places at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoton.shapes import Float, Int

# Logits computed at once: about 16 MB in float32.
_LOGITS_AT_ONCE = 2**22


@dataclass(frozen=True)
class TokenScores:
    """Log-likelihood of each token of one text given those before it; the first token has none before it.

    Attributes:
        log_likelihoods: `[L - 1]` of the tokens from the second on, in nats.
        top: `[L - 1, k]` log-likelihoods of the k likeliest tokens at the same places.
        top_tokens: `[L - 1, k]` those tokens.
    """

    log_likelihoods: Float[Tensor, " N"]
    top: Float[Tensor, "N k"]
    top_tokens: Int[Tensor, "N k"]


def token_scores(
    logits: Callable[[slice], Float[Tensor, "n V"]],
    wanted: Int[Tensor, " N"],
    lengths: Sequence[int],
    k: int,
    vocabulary: int,
) -> list[TokenScores]:
    """Returns scores of the tokens of several texts.

    Args:
        logits: Returns the logits `[n, V]` of a slice of the N places.
        wanted: `[N]` the token after each place.
        lengths: Number of places of each text among the N.
        k: Number of likeliest tokens to return.
        vocabulary: V, to bound memory.
    """
    found, top, tokens = [], [], []
    at_once = max(1, _LOGITS_AT_ONCE // vocabulary)
    for start in range(0, len(wanted), at_once):
        part = slice(start, start + at_once)
        likelihoods = torch.log_softmax(logits(part).float(), dim=-1)
        found.append(likelihoods.gather(1, wanted[part, None])[:, 0].cpu())
        best = likelihoods.topk(k, dim=-1)
        top.append(best.values.cpu())
        tokens.append(best.indices.cpu())
    if not found:
        found, top, tokens = [torch.empty(0)], [torch.empty(0, k)], [torch.empty(0, k, dtype=torch.long)]
    parts = (torch.split(torch.cat(each), list(lengths)) for each in (found, top, tokens))
    return [TokenScores(*row) for row in zip(*parts, strict=True)]
