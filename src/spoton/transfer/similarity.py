"""Similarity of two prompts as task embeddings (SPoT, section 3.2). Takes plain matrices, returns one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from spoton.arguments import require_kind
from spoton.errors import PromptError
from spoton.shapes import Float

Similarity = Literal["average_tokens", "per_token_average", "maximum_token"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)


def similarity(a: Tensor, b: Tensor, metric: Similarity = "average_tokens") -> float:
    """Returns the similarity of two prompts, in [-1, 1]; symmetric; lengths may differ.

    - `average_tokens`: cosine of the mean token of each (SPoT, section 3.2).
    - `per_token_average`: mean cosine over all pairs of tokens (SPoT, section 3.2). Not 1 for a prompt with itself.
    - `maximum_token`: each token's highest cosine in the other prompt, averaged over the tokens of both (the
      pairwise maximum of Lin et al. 2024, arXiv 2407.16245, made symmetric).

    Args:
        a: `[P, D]`.
        b: `[Q, D]`.
        metric: The similarity.

    Raises:
        PromptError: The prompts differ in width or are not matrices, or the metric is unknown.

    Examples:
        >>> import torch
        >>> round(similarity(torch.eye(2), torch.ones(3, 2)), 3)
        1.0
    """
    if metric not in _SIMILARITIES:
        raise PromptError(f"Unknown similarity {metric!r}; there is: {', '.join(SIMILARITIES)}.")
    for name, prompt in (("a", a), ("b", b)):
        require_kind(
            prompt, Tensor, name, PromptError, "a matrix [P, D]: the `key` or the `value` of a SoftPrompt"
        )
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise PromptError(
            f"Prompts of shapes {list(a.shape)} and {list(b.shape)} cannot be compared: they need one width D, "
            "which prompts of one model share."
        )
    # Rounding may leave the range: a prompt with itself gave 1.0000000000000002.
    return float(_SIMILARITIES[metric](a.double(), b.double()).clamp(-1, 1))


def _average_tokens(a: Float[Tensor, "P D"], b: Float[Tensor, "Q D"]) -> Float[Tensor, ""]:
    return cosine_similarity(a.mean(dim=0), b.mean(dim=0), dim=0)


def _per_token_average(a: Float[Tensor, "P D"], b: Float[Tensor, "Q D"]) -> Float[Tensor, ""]:
    # The mean over all pairs is the product of the mean unit tokens: P + Q rows instead of P * Q pairs.
    return normalize(a, dim=1).mean(dim=0) @ normalize(b, dim=1).mean(dim=0)


def _maximum_token(a: Float[Tensor, "P D"], b: Float[Tensor, "Q D"]) -> Float[Tensor, ""]:
    cosines = normalize(a, dim=1) @ normalize(b, dim=1).T
    return torch.cat([cosines.amax(dim=1), cosines.amax(dim=0)]).mean()


_SIMILARITIES: dict[Similarity, Callable[[Tensor, Tensor], Tensor]] = {
    "average_tokens": _average_tokens,
    "per_token_average": _per_token_average,
    "maximum_token": _maximum_token,
}
