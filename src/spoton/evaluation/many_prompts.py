"""Scores of several prompts on the same rows, in shared passes: a trial of sources, the members of an ensemble.

The keys and values of the prompts are computed once if the engine can keep them; a pass then holds rows of several
prompts. Callers use the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spoton.evaluation.encoding import Encoded, needs_end
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.models.memory import batches_by_length
from spoton.shapes import Float

# Prompt tokens whose keys and values are kept at a time: SmolLM2-135M takes 90 MB for them in bfloat16.
_KEPT_TOKENS = 4096
# Prompt tokens that run in every pass, if a pass has about 32 rows.
_RUN_TOKENS = 256

OnRows = Callable[[int], None]
"""Called with the number of finished rows, one per prompt and input."""


@dataclass
class ScoringCost:
    """The cost of scoring.

    Attributes:
        passes: Passes through the model.
        tokens: Tokens in these passes, prompts included.
    """

    passes: int = 0
    tokens: int = 0

    def add(self, other: ScoringCost) -> None:
        """Adds the cost of other scoring."""
        self.passes += other.passes
        self.tokens += other.tokens


@dataclass(frozen=True)
class _Group:
    """Prompts that go through the model together.

    Attributes:
        first: Index of the first prompt among all.
        values: `[P_k, D]` each.
        batches: Pairs of a prompt of the group and a row.
    """

    first: int
    values: list[Float[Tensor, "_ D"]]
    batches: list[list[tuple[int, int]]] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """P of each prompt."""
        return [len(value) for value in self.values]

    def cost(self, model: FrozenModel, rows: Sequence[int]) -> ScoringCost:
        """Returns the cost of scoring these prompts on rows of the given lengths in tokens."""
        return ScoringCost(len(self.batches), tokens_of(model, self.lengths, rows))


@torch.no_grad()
def label_scores_of(
    model: FrozenModel,
    values: Sequence[Float[Tensor, "_ D"]],
    encoded: Encoded,
    labels: Sequence[Sequence[int]],
    *,
    on_rows: OnRows | None = None,
    passes: ScoringCost | None = None,
) -> Float[Tensor, "{len(values)} {len(encoded)} {len(labels)}"]:
    """Returns `[K, N, C]` log-likelihood of each label after each input for every prompt, in nats.

    Args:
        model: The frozen model.
        values: K prompts `[P_k, D]`; lengths may differ.
        encoded: N inputs.
        labels: Tokens of the C labels.
        on_rows: Called with the number of finished rows.
        passes: Counts the cost.
    """
    scores = torch.zeros(len(values), len(encoded), len(labels))
    behind = sum(map(len, labels))
    for group in _groups(model, values, [len(row) + behind for row in encoded.inputs], _KEPT_TOKENS):
        if passes is not None:
            passes.add(group.cost(model, [len(row) for row in encoded.inputs]))
        score = engine_for(model).scorer(group.values)
        for pairs in group.batches:
            found = score(_batch(encoded, pairs), labels).float().cpu()
            _put(scores, group.first, pairs, found)
            if on_rows:
                on_rows(len(pairs))
    return scores


@torch.no_grad()
def target_losses_of(
    model: FrozenModel,
    values: Sequence[Float[Tensor, "_ D"]],
    encoded: Encoded,
    *,
    on_rows: OnRows | None = None,
    passes: ScoringCost | None = None,
) -> Float[Tensor, "{len(values)} {len(encoded)}"]:
    """Returns `[K, N]` negative log-likelihood of each row's own target for every prompt, in nats per token.

    Args:
        model: The frozen model.
        values: K prompts `[P_k, D]`; lengths may differ.
        encoded: N inputs and targets.
        on_rows: Called with the number of finished rows.
        passes: Counts the cost.
    """
    losses = torch.zeros(len(values), len(encoded))
    lengths = [len(i) + len(t) for i, t in zip(encoded.inputs, encoded.targets, strict=True)]
    for group in _groups(model, values, lengths, _RUN_TOKENS):
        if passes is not None:
            passes.add(group.cost(model, lengths))
        for pairs in group.batches:
            found = engine_for(model).losses(group.values, _batch(encoded, pairs)).float().cpu()
            each = torch.tensor([len(encoded.targets[row]) for _, row in pairs])
            _put(losses, group.first, pairs, found / each)
            if on_rows:
                on_rows(len(pairs))
    return losses


def label_tokens(model: FrozenModel, labels: Sequence[str]) -> list[list[int]]:
    """Returns the tokens of label words; without an end token, unless one is a prefix of another."""
    end = needs_end(model, labels)
    return [model.encode_target(label, end=end) for label in labels]


def tokens_of(model: FrozenModel, prompts: Sequence[int], rows: Sequence[int]) -> int:
    """Returns how many tokens go through a model for every prompt on every row.

    Args:
        model: The model; its engine decides whether a prompt runs once per row.
        prompts: Lengths of the prompts.
        rows: Tokens of the rows.
    """
    times = len(rows) if engine_for(model).repeats_prompts else 1
    return len(prompts) * sum(rows) + times * sum(prompts)


def _groups(
    model: FrozenModel, values: Sequence[Float[Tensor, "_ D"]], lengths: Sequence[int], most: int
) -> Iterator[_Group]:
    """Yields the prompts in groups of at most this many tokens, each with its batches of similar length."""
    first = 0
    while first < len(values):
        end, tokens = first + 1, len(values[first])
        while end < len(values) and tokens + len(values[end]) <= most:
            tokens += len(values[end])
            end += 1
        group = _Group(first, list(values[first:end]))
        pairs = [(k, row) for k in range(len(group.values)) for row in range(len(lengths))]
        repeated = max(group.lengths) if engine_for(model).repeats_prompts else 0
        for batch in batches_by_length(model, [lengths[row] for _, row in pairs], repeated):
            group.batches.append([pairs[place] for place in batch])
        yield group
        first = end


def _batch(encoded: Encoded, pairs: Sequence[tuple[int, int]]) -> Batch:
    return Batch(
        [encoded.inputs[row] for _, row in pairs], [encoded.targets[row] for _, row in pairs], [k for k, _ in pairs]
    )  # fmt: skip


def _put(result: Tensor, first: int, pairs: Sequence[tuple[int, int]], found: Tensor) -> None:
    result[[first + k for k, _ in pairs], [row for _, row in pairs]] = found
