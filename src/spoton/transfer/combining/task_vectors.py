"""A single start: the target's own start, moved by what the sources learned.

P = P_0 + sum over k of w_k (P_k - S_k), with P_0 the target's own start, P_k a source's prompt and S_k that prompt's
start: task prompt vectors (Belanec et al. 2024, https://arxiv.org/abs/2408.01119, section 3). There all weights are one
scale; here they are in proportion to similarity and sum to 1, so that k does not change the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spoton.errors import LibraryError
from spoton.prompts.initial import from_prompt
from spoton.shapes import Float
from spoton.transfer.combining.start import Start
from spoton.transfer.combining.weighted_average import by_similarity, names_of, parents_of
from spoton.transfer.sources import Retrieved


def task_vectors(retrieved: Sequence[Retrieved], own: Float[Tensor, "P D"]) -> list[Start]:
    """Returns the target's moved start, as one start.

    Args:
        retrieved: Sources; those without a known start are left out.
        own: `[P, D]` the target's own start.

    Raises:
        LibraryError: No source has a known start, or none of these has a positive similarity.
    """
    known = [one for one in retrieved if one.prompt.start is not None and one.is_source]
    if not known:
        raise LibraryError(
            "None of the retrieved prompts knows the start of its tuning, so no task vector can be computed. "
            "Use --method weighted-average, or prompts tuned by this version of spoton."
        )
    sources, weights = by_similarity(known)
    moved = torch.stack([_vector(one, len(own)) for one in sources])
    value = own + torch.einsum("k,kpd->pd", torch.tensor(weights), moved)
    return [Start(names_of(sources), value, parents_of(sources, weights))]


def _vector(source: Retrieved, length: int) -> Float[Tensor, "{length} D"]:
    """Returns the displacement that a source learned, `[P, D]`."""
    assert source.prompt.start is not None
    return from_prompt(source.prompt.value, length) - from_prompt(source.prompt.start, length)
