"""Losses and gradients of a step, split into as many passes through the model as memory requires.

The memory that a step keeps for its backward pass grows with the number of tokens, and with pairs of tokens where
attention keeps its weights. So it is measured on two rows of the first step and scaled. Everything else (weights, one
layer's temporaries, the optimizer) does not grow with the batch. The caller decides which tensors require a gradient
(prompts, or all weights of a model).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.nn import functional

from spoton.errors import ModelError
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.models.memory import free_bytes, is_out_of_memory
from spoton.models.packed_rows import send
from spoton.tuning.recipe import Loss

# Activations may take this share of the free memory, since the backward pass needs temporaries too.
SHARE_OF_FREE = 0.5


@dataclass
class Kept:
    """Bytes that autograd keeps for a backward pass."""

    bytes: int = 0


@contextmanager
def count_kept(network: nn.Module) -> Iterator[Kept]:
    """Counts the bytes that forward passes in the block keep for their backward pass, without the model's weights.

    The count is available after the block.
    """
    kept, weights = Kept(), {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    saved: list[ReferenceType[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        """Records a saved tensor, detached: the tensor itself would form a cycle that keeps the graph alive."""
        alias = tensor.detach()
        saved.append(ref(alias))
        return alias

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
    # A storage counts once, however many views of it are alive.
    alive = [tensor.untyped_storage() for one in saved if (tensor := one()) is not None]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in alive}
    kept.bytes = sum(size for place, size in sizes.items() if place not in weights)


def split(costs: Sequence[float], limit: float) -> list[list[int]]:
    """Groups rows, in order, into passes that cost at most `limit`; a row that costs more gets its own pass.

    Args:
        costs: Cost of each row.
        limit: Largest cost of a pass.

    Examples:
        >>> split([3, 3, 3, 9], 7)
        [[0, 1], [2], [3]]
    """
    passes: list[list[int]] = [[]]
    total = 0.0
    for row, cost in enumerate(costs):
        if passes[-1] and total + cost > limit:
            passes.append([])
            total = 0.0
        passes[-1].append(row)
        total += cost
    return passes


@dataclass(frozen=True)
class StepRows:
    """Rows of one step of one run; the step minimises the weighted sum of their losses.

    Attributes:
        batch: The rows.
        weights: Weight of each row's loss.
        labels: Tokens of the label words, if the loss is the cross-entropy over them; empty if it is the negative
            log-likelihood of each row's target.
    """

    batch: Batch
    weights: tuple[float, ...]
    labels: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, batch: Batch, loss: Loss, labels: Sequence[Sequence[int]] = ()) -> StepRows:
        """Returns the rows with the weights that a recipe's loss gives them."""
        rows, lengths = len(batch), list(map(len, batch.targets))
        if loss == "labels":
            return cls(batch, (1.0 / rows,) * rows, tuple(map(tuple, labels)))
        if loss == "tokens":
            return cls(batch, (1.0 / sum(lengths),) * rows)
        return cls(batch, tuple(1.0 / (rows * length) for length in lengths))


class Microbatches:
    """Splits steps into passes and counts the memory they keep.

    Args:
        model: The model that runs the passes.
        limit: Bytes that a pass may keep for its backward pass; None: half of the free memory at the first step.

    Attributes:
        most_bytes: Most bytes that a pass has kept so far.
        most_passes: Most passes that a step has taken so far.
        messages: What users should know, each message once: memory ran out, or every row needs its own pass.
    """

    def __init__(self, model: FrozenModel, limit: float | None = None) -> None:
        self._model, self._engine, self._limit = model, engine_for(model), limit
        self._per_token, self._per_pair, self._most_tokens = 0.0, 0.0, 0
        self._alone = True
        """Whether every row of the last step had its own pass."""
        self.most_bytes, self.most_passes = 0, 1
        self.messages: list[str] = []

    def gradients(self, prompts: Sequence[Tensor], steps: Sequence[StepRows]) -> list[float]:
        """Does the work of `gradients_on_device` for prompts `[P_k, D]`, then returns the loss of each run in nats."""
        losses: list[float] = self.gradients_on_device(prompts, steps).tolist()
        return losses

    def backward(self, made: Sequence[Tensor], steps: Sequence[StepRows]) -> Tensor:
        """Adds the gradients of every run's loss to the parameters that its prompt was made of.

        Passes see leaves, so that a step of several passes goes through a reparameterization once.

        Args:
            made: `[P_k, D]` as parameters make them; parameters that are prompts themselves are leaves already.
            steps: Rows of one step, one entry per run.

        Returns:
            The losses `[K]`, as `gradients_on_device` does.
        """
        leaves = [prompt.detach().requires_grad_(prompt.requires_grad) for prompt in made]
        losses = self.gradients_on_device(leaves, steps)
        for prompt, leaf in zip(made, leaves, strict=True):
            if leaf.grad is not None:
                prompt.backward(leaf.grad)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return losses

    def gradients_on_device(self, prompts: Sequence[Tensor], steps: Sequence[StepRows]) -> Tensor:
        """Adds the gradients of every run's loss to the leaves, and returns the losses `[K]`, float32 on the device.

        Nothing here waits for the device. If memory runs out, the step drops its gradients and runs again in smaller
        passes.

        Args:
            prompts: `[P_k, D]` before the rows of run k; `[0, D]` for model tuning.
            steps: Rows of one step, one entry per run.
        """
        while True:
            try:
                return self._step(prompts, steps)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else "no more memory"
            self._retreat(prompts, reason)

    def _step(self, prompts: Sequence[Tensor], steps: Sequence[StepRows]) -> Tensor:
        losses, taken = torch.zeros(len(steps), device=self._model.device), 0
        by_labels: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for k, step in enumerate(steps):
            by_labels.setdefault(step.labels, []).append(k)
        for labels, runs in by_labels.items():  # runs that minimise the same kind of loss share their passes
            found, passes = self._shared([prompts[k] for k in runs], [steps[k] for k in runs], labels)
            taken += passes
            (places,) = send([torch.tensor(runs)], losses.device)
            losses.index_copy_(0, places, found)
        self.most_passes = max(self.most_passes, taken - len(by_labels) + 1)
        return losses

    def _shared(
        self, prompts: Sequence[Tensor], steps: Sequence[StepRows], labels: Sequence[Sequence[int]]
    ) -> tuple[Tensor, int]:
        """Returns the losses `[K]` of runs that minimise the same kind of loss, and the number of passes they took."""
        inputs = [row for step in steps for row in step.batch.inputs]
        targets = [row for step in steps for row in step.batch.targets]
        weights = [weight for step in steps for weight in step.weights]
        own = [k for k, step in enumerate(steps) for _ in step.batch.inputs]
        shared = 0 if self._engine.repeats_prompts else sum(map(len, prompts))
        self._measure(prompts[0], steps[0].batch)
        assert self._limit is not None
        behind = sum(map(len, labels))
        lengths = [len(i) + (behind or len(t)) for i, t in zip(inputs, targets, strict=True)]
        costs = [self._cost(length, len(prompts[k])) for length, k in zip(lengths, own, strict=True)]
        parts = split(costs, self._limit - self._per_token * shared)
        self._alone = len(parts) == len(inputs)
        if self._alone and len(inputs) > 1:
            self._say(
                f"Memory is so short ({self._limit / 2**20:.0f} MiB for a pass) that every row goes through the model "
                "alone, which is slow. A smaller --max-input-tokens or --length, or fewer seeds at once, needs less."
            )
        losses = torch.zeros(len(steps), device=self._model.device)
        for part in parts:
            batch = Batch([inputs[i] for i in part], [targets[i] for i in part], [own[i] for i in part])
            found = self._losses(prompts, batch, labels, shared + sum(lengths[i] for i in part))
            (share,) = send([torch.tensor([weights[i] for i in part])], found.device)
            weighted = found * share
            weighted.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            (owners,) = send([torch.tensor(batch.rows)], losses.device)
            losses.index_add_(0, owners, weighted.detach().to(losses.device))
        return losses, len(parts)

    def _cost(self, length: int, prompt: int) -> float:
        """Returns the bytes that a row keeps for the backward pass."""
        tokens = length + (prompt if self._engine.repeats_prompts else 0)
        seen = tokens if self._engine.repeats_prompts else length + prompt
        return self._per_token * tokens + self._per_pair * tokens * seen

    def _losses(
        self, prompts: Sequence[Tensor], batch: Batch, labels: Sequence[Sequence[int]], tokens: int
    ) -> Tensor:
        """Returns the rows' losses `[B]`, and counts what they keep if no earlier pass was as large."""
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
        (gold,) = send([torch.tensor([places[tuple(target)] for target in batch.targets])], scores.device)
        return functional.cross_entropy(scores, gold, reduction="none")

    def _measure(self, prompt: Tensor, batch: Batch) -> None:
        """Measures, at the first step, the bytes kept for a token and for a pair of tokens in attention."""
        if self._per_token:
            return
        row, target = max(zip(batch.inputs, batch.targets, strict=True), key=lambda one: len(one[0]))
        long, short = list(row) * (1 + 32 // len(row)), list(row)[: max(1, len(row) // 4)]
        limit = self._model.max_length
        if limit is not None:
            long = long[: max(1, limit - len(prompt) - len(target))]
        sizes, pairs, kept = [], [], []
        for text in (short, long):
            with count_kept(self._model.network) as one:
                self._engine.losses([prompt], Batch([text], [target]))
            own, all_ = len(text) + len(target), len(prompt) + len(text) + len(target)
            sizes.append(all_)
            pairs.append(all_**2 if self._engine.repeats_prompts else own * all_ + len(prompt) ** 2)
            kept.append(one.bytes)
        # Solves kept = per_token * size + per_pair * pairs for the two measurements.
        determinant = sizes[0] * pairs[1] - sizes[1] * pairs[0]
        if determinant > 0:
            self._per_pair = max(0.0, (sizes[0] * kept[1] - sizes[1] * kept[0]) / determinant)
        self._per_token = max(1.0, (kept[1] - self._per_pair * pairs[1]) / sizes[1])
        if self._limit is None:
            self._limit = SHARE_OF_FREE * free_bytes(self._model.device)

    def _retreat(self, prompts: Sequence[Tensor], reason: str) -> None:
        """Halves what a pass may keep after memory ran out, and drops the gradients of the step.

        Raises:
            ModelError: The passes had one row each.
        """
        for leaf in (*prompts, *self._model.network.parameters()):
            if leaf.requires_grad:
                leaf.grad = None
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._alone or self._limit is None:
            raise ModelError(
                f"A single row needs more memory than {self._model.device} has ({reason}). Choose a smaller "
                "--max-input-tokens or --length, --dtype bfloat16, or a smaller model."
            )
        self._limit = min(self._limit / 2, max(1.0, self.most_bytes / 2))
        self._say(f"Memory ran out ({reason}): steps continue in smaller passes.")

    def _say(self, message: str) -> None:
        """Adds a message unless it is there already."""
        if message not in self.messages:
            self.messages.append(message)
