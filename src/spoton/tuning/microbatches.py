"""Losses and gradients of a step, in as many passes through the model as memory asks for.

What a step keeps for its backward pass grows with the tokens that go through the model, so it is measured on the first
row and scaled. Everything else (weights, one layer's temporaries, the optimizer) does not grow with the batch. What
wants the gradient (prompts, or all weights of a model) is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import ReferenceType, ref

import psutil
import torch
from torch import Tensor, nn

from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel

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


class Microbatches:
    """Splits steps and counts what they keep.

    Args:
        model: Through which the passes go.
        limit: Bytes that a pass may keep for its backward pass; None: half of what is free at the first step.

    Attributes:
        most_bytes: Most bytes that a pass has kept so far.
        most_passes: Most passes that a step has taken so far.
    """

    def __init__(self, model: FrozenModel, limit: float | None = None) -> None:
        self._model, self._engine, self._limit = model, engine_for(model), limit
        self._bytes_per_token, self._most_tokens = 0.0, 0
        self.most_bytes, self.most_passes = 0, 1

    def gradients(self, prompts: Sequence[Tensor], batches: Sequence[Batch]) -> list[float]:
        """Adds the gradient of every batch's mean loss to what wants one; returns these losses, nats a target token.

        Args:
            prompts: ``[P_k, D]`` in front of the rows of batch k; of no token for model tuning.
            batches: Rows of one step, one batch a prompt.
        """
        inputs = [row for batch in batches for row in batch.inputs]
        targets = [row for batch in batches for row in batch.targets]
        own = [k for k, batch in enumerate(batches) for _ in batch.inputs]
        shares = [1.0 / sum(map(len, batch.targets)) for batch in batches]
        repeated = self._engine.repeats_prompts
        shared = 0 if repeated else sum(map(len, prompts))
        tokens = [
            len(i) + len(t) + (len(prompts[k]) if repeated else 0)
            for i, t, k in zip(inputs, targets, own, strict=True)
        ]
        losses = [0.0] * len(batches)
        parts = split(tokens, self._room(prompts[0], batches[0]) - shared)
        self.most_passes = max(self.most_passes, len(parts))
        for part in parts:
            batch = Batch([inputs[i] for i in part], [targets[i] for i in part], [own[i] for i in part])
            found = self._losses(prompts, batch, shared + sum(tokens[i] for i in part))
            weighted = found * torch.tensor([shares[own[i]] for i in part], device=found.device)
            weighted.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            for i, value in zip(part, weighted.tolist(), strict=True):
                losses[own[i]] += value
        return losses

    def _losses(self, prompts: Sequence[Tensor], batch: Batch, tokens: int) -> Tensor:
        """The engine's losses; what they keep is counted whenever a pass is larger than all before it."""
        if tokens <= self._most_tokens:
            return self._engine.losses(prompts, batch)
        with count_kept(self._model.network) as kept:
            found = self._engine.losses(prompts, batch)
        self.most_bytes, self._most_tokens = max(self.most_bytes, kept.bytes), tokens
        return found

    def _room(self, prompt: Tensor, batch: Batch) -> float:
        """How many tokens a pass may have, from what the first row of the first step keeps."""
        if not self._bytes_per_token:
            with count_kept(self._model.network) as kept:
                self._engine.losses([prompt], Batch(batch.inputs[:1], batch.targets[:1]))
            tokens = len(prompt) + len(batch.inputs[0]) + len(batch.targets[0])
            self._bytes_per_token = max(1.0, kept.bytes / tokens)
            if self._limit is None:
                self._limit = SHARE_OF_FREE * free_bytes(self._model.device)
        assert self._limit is not None
        return self._limit / self._bytes_per_token
