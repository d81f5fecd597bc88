"""The interface of every engine: losses, label scores and generation for K prompts over one frozen model.

A prompt stack is `[K, P, D]`, and each row of a batch names its prompt. Outputs cover the rows' own tokens only;
virtual positions never leave an engine. `choose_engine.py` decides which engine runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from spoton.shapes import Float


@dataclass(frozen=True)
class Batch:
    """Token ids of a few examples and the index of each one's prompt.

    Attributes:
        inputs: Input tokens of each row; never empty.
        targets: Target tokens of each row; empty where only the input matters.
        prompt: Index of each row's prompt in the stack; None: all rows use prompt 0.
    """

    inputs: Sequence[Sequence[int]]
    targets: Sequence[Sequence[int]]
    prompt: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not self.inputs or not all(self.inputs):
            raise ValueError("a batch needs at least one row, and every row at least one input token")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def rows(self) -> list[int]:
        """Index of every row's prompt."""
        return [0] * len(self.inputs) if self.prompt is None else list(self.prompt)


@dataclass(frozen=True)
class Choice:
    """The engine chosen for a model.

    Attributes:
        engine: Its name.
        reason: Results of the checks, including those of the engines that were not chosen.
    """

    engine: str
    reason: str


Prompts = Float[Tensor, "K P D"] | Sequence[Float[Tensor, "_ D"]]
"""A float32 stack of K prompts (P may be 0: the bare model), or a list of K matrices of different lengths."""

Scorer = Callable[[Batch, Sequence[Sequence[int]]], Float[Tensor, "B C"]]
"""Log-likelihood of each label after each input, summed over the label's tokens: `[B, C]` float32, in nats."""

Wanted = Callable[[int], bool]
"""Whether a row wants more tokens, after so many of them."""


@runtime_checkable
class Generator(Protocol):
    """Continues texts greedily."""

    def __call__(
        self, batch: Batch, max_tokens: int, wanted: Sequence[Wanted] | None = None
    ) -> list[list[int]]:
        """Returns the continuation of each input, cut before the end token.

        Args:
            batch: Inputs; targets are not read.
            max_tokens: Largest number of tokens of one continuation.
            wanted: Asked after every token of each row; None: every row wants all of them.
        """


@runtime_checkable
class Engine(Protocol):
    """Runs soft prompts through one frozen model."""

    name: str
    repeats_prompts: bool
    """Whether a prompt runs once per row, rather than once per pass."""
    choice: Choice | None
    """Why this engine runs its model; None if it was not chosen."""

    def losses(self, prompts: Prompts, batch: Batch) -> Float[Tensor, " {len(batch)}"]:
        """Returns the negative log-likelihood of each row's target, summed over its tokens: `[B]` float32, in nats."""

    def label_scores(
        self, prompts: Prompts, batch: Batch, labels: Sequence[Sequence[int]]
    ) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
        """Returns the log-likelihood of each label after each input: `[B, C]`, in nats; prompts get gradients."""

    def scorer(self, prompts: Prompts) -> Scorer:
        """Prepares to score many batches with the same prompts; does once what does not depend on the batch."""

    def generator(self, prompts: Prompts) -> Generator:
        """Prepares to continue many batches with the same prompts; does once what does not depend on the batch."""


def label_scores_by_losses(
    engine: Engine, prompts: Prompts, batch: Batch, labels: Sequence[Sequence[int]]
) -> Float[Tensor, "{len(batch)} {len(labels)}"]:
    """Returns `Engine.label_scores` by running every input once per label: `[B, C]`."""
    repeated = Batch(
        [text for text in batch.inputs for _ in labels],
        [label for _ in batch.inputs for label in labels],
        [row for row in batch.rows for _ in labels],
    )
    return -engine.losses(prompts, repeated).view(len(batch), len(labels))
