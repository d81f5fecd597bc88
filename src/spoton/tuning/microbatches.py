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
from torch.nn import functional

from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.tuning.recipe import Loss

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


@dataclass(frozen=True)
class StepRows:
    """Rows of one step of one run, and what is minimised over them: the weighted sum of the rows' losses.

    Attributes:
        batch: The rows.
        weights: Of each row's loss.
        labels: Tokens of the label words, where a row's loss is the cross-entropy over them; empty where it is the
            negative log-likelihood of its target.
    """

    batch: Batch
    weights: tuple[float, ...]
    labels: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, batch: Batch, loss: Loss, labels: Sequence[Sequence[int]] = ()) -> StepRows:
        """Returns rows with the weights that a recipe's loss gives them."""
        rows, lengths = len(batch), list(map(len, batch.targets))
        if loss == "labels":
            return cls(batch, (1.0 / rows,) * rows, tuple(map(tuple, labels)))
        if loss == "tokens":
            return cls(batch, (1.0 / sum(lengths),) * rows)
        return cls(batch, tuple(1.0 / (rows * length) for length in lengths))


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

    def gradients(self, prompts: Sequence[Tensor], steps: Sequence[StepRows]) -> list[float]:
        """Adds the gradient of every run's loss to what wants one; returns these losses, in nats.

        Args:
            prompts: ``[P_k, D]`` in front of the rows of run k; of no token for model tuning.
            steps: Rows of one step, one a run.
        """
        losses, taken = [0.0] * len(steps), 0
        by_labels: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for k, step in enumerate(steps):
            by_labels.setdefault(step.labels, []).append(k)
        for labels, runs in by_labels.items():  # runs that minimise the same kind of loss share their passes
            found, passes = self._shared([prompts[k] for k in runs], [steps[k] for k in runs], labels)
            taken += passes
            for k, loss in zip(runs, found, strict=True):
                losses[k] = loss
        self.most_passes = max(self.most_passes, taken - len(by_labels) + 1)
        return losses

    def _shared(
        self, prompts: Sequence[Tensor], steps: Sequence[StepRows], labels: Sequence[Sequence[int]]
    ) -> tuple[list[float], int]:
        """Losses of runs that minimise the same kind of loss, and into how many passes they were split."""
        inputs = [row for step in steps for row in step.batch.inputs]
        targets = [row for step in steps for row in step.batch.targets]
        weights = [weight for step in steps for weight in step.weights]
        own = [k for k, step in enumerate(steps) for _ in step.batch.inputs]
        repeated = self._engine.repeats_prompts
        shared = 0 if repeated else sum(map(len, prompts))
        behind = sum(map(len, labels))
        tokens = [
            len(i) + (behind or len(t)) + (len(prompts[k]) if repeated else 0)
            for i, t, k in zip(inputs, targets, own, strict=True)
        ]
        losses = [0.0] * len(steps)
        parts = split(tokens, self._room(prompts[0], steps[0].batch) - shared)
        for part in parts:
            batch = Batch([inputs[i] for i in part], [targets[i] for i in part], [own[i] for i in part])
            found = self._losses(prompts, batch, labels, shared + sum(tokens[i] for i in part))
            weighted = found * torch.tensor([weights[i] for i in part], device=found.device)
            weighted.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            for i, value in zip(part, weighted.tolist(), strict=True):
                losses[own[i]] += value
        return losses, len(parts)

    def _losses(
        self, prompts: Sequence[Tensor], batch: Batch, labels: Sequence[Sequence[int]], tokens: int
    ) -> Tensor:
        """Losses of the rows ``[B]``; what they keep is counted whenever a pass is larger than all before it."""
        if tokens <= self._most_tokens:
            return self._row_losses(prompts, batch, labels)
        with count_kept(self._model.network) as kept:
            found = self._row_losses(prompts, batch, labels)
        self.most_bytes, self._most_tokens = max(self.most_bytes, kept.bytes), tokens
        return found

    def _row_losses(self, prompts: Sequence[Tensor], batch: Batch, labels: Sequence[Sequence[int]]) -> Tensor:
        if not labels:
            return self._engine.losses(prompts, batch)
        scores = self._engine.label_scores(prompts, batch, labels)
        places = {tuple(label): place for place, label in enumerate(labels)}
        gold = torch.tensor([places[tuple(target)] for target in batch.targets], device=scores.device)
        return functional.cross_entropy(scores, gold, reduction="none")

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
