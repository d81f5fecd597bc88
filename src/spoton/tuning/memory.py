"""How much memory a step needs, and into how many passes it has to be split to fit.

What a step keeps for its backward pass grows with the tokens that go through the model, so it is measured on the first
row and scaled. Everything else (weights, one layer's temporaries, the optimizer) does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import ReferenceType, ref

import psutil
import torch
from torch import Tensor, nn

# Activations may take this share of what is free: the backward pass needs temporaries beside them.
SHARE_OF_FREE = 0.5


@dataclass
class Kept:
    """Bytes that autograd keeps for a backward pass."""

    bytes: int = 0


@contextmanager
def count_kept(network: nn.Module) -> Iterator[Kept]:
    """Counts what forward passes inside the block keep for their backward pass, the model's weights left out.

    The number is there after the block.
    """
    kept, weights = Kept(), {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    saved: list[ReferenceType[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        """Notes what is saved. The tensor itself would make a cycle that keeps the graph alive, so it is detached."""
        alias = tensor.detach()
        saved.append(ref(alias))
        return alias

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
    # What is still alive; storages count once, however many views of them are kept.
    alive = [tensor.untyped_storage() for one in saved if (tensor := one()) is not None]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in alive}
    kept.bytes = sum(size for place, size in sizes.items() if place not in weights)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def split(costs: list[int], limit: float) -> list[list[int]]:
    """Rows in passes whose costs stay within ``limit``, in order; a row that is too large alone goes alone.

    Args:
        costs: Cost of each row.
        limit: Largest cost of a pass.

    Example:
        >>> split([3, 3, 3, 9], 7)
        [[0, 1], [2], [3]]
    """
    passes: list[list[int]] = [[]]
    total = 0
    for row, cost in enumerate(costs):
        if passes[-1] and total + cost > limit:
            passes.append([])
            total = 0
        passes[-1].append(row)
        total += cost
    return passes
