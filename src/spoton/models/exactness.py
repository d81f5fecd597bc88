"""What the checks of exactness compare: random rows, and how far two ways of computing the same may differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel


def check_rows(model: FrozenModel, lengths: Sequence[tuple[int, int]]) -> tuple[Tensor, Batch]:
    """Two random prompts ``[2, P, D]`` and a batch of random rows, to compare two ways of computing the same.

    Args:
        model: The frozen model.
        lengths: Tokens of input and target of every row.
    """
    draw = torch.Generator().manual_seed(0)
    vocabulary, dim = model.embeddings.shape
    ids = [torch.randint(vocabulary, (n + m,), generator=draw).tolist() for n, m in lengths]
    batch = Batch(
        [row[:n] for row, (n, _) in zip(ids, lengths, strict=True)],
        [row[n:] for row, (n, _) in zip(ids, lengths, strict=True)],
        prompt=[row % 2 for row in range(len(ids))],
    )
    scale = float(model.embeddings[:1000].float().std())
    return torch.randn(2, 6, dim, generator=draw) * scale, batch


def tolerance_of(model: FrozenModel) -> float:
    """How far two ways of computing the same may differ in the type of ``model``, in nats and relatively."""
    return 1e-4 if model.dtype == torch.float32 else 0.05
