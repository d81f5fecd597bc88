"""Token ids of examples that are too many to tokenize before the first step: each step tokenizes its own rows.

`encode` checks all examples first. This file checks only the examples in use: empty inputs, and how many inputs lost
their middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from spoton.evaluation.encoding import Encoded, encode, encoded_in, room_for_input
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.tasks.stored.rows import StoredRows
from spoton.tasks.task import Example

_LONGEST = 64
"""Number of open targets, the longest in characters, that are tokenized to find the longest in tokens."""


def encode_for_training(
    model: FrozenModel,
    examples: Sequence[Example],
    *,
    end: bool,
    prompt_length: int,
    max_input_tokens: int,
    labels: Sequence[str] | None = None,
) -> Encoded | LateEncoded:
    """Tokenizes training examples, now or, if they are in a store, when a step needs them; see `encode`.

    Raises:
        DataError: As `encode`; an error in one example of a store is raised when a step needs it.
    """
    if isinstance(examples, StoredRows):
        return LateEncoded(
            model, examples, end=end, prompt_length=prompt_length, max_input_tokens=max_input_tokens, labels=labels
        )  # fmt: skip
    return encode(
        model, examples, end=end, prompt_length=prompt_length, max_input_tokens=max_input_tokens, labels=labels
    )  # fmt: skip


class LateEncoded:
    """Examples of a store as token ids; see `Encoded`.

    Args:
        model: The model whose tokens are used.
        examples: The examples to encode.
        end: Whether targets of a decoder-only model carry the end token.
        prompt_length: P, to stay within the model's positions.
        max_input_tokens: Length of the longest input to keep.
        labels: Label words; None if targets are open.
    """

    def __init__(
        self,
        model: FrozenModel,
        examples: StoredRows,
        *,
        end: bool,
        prompt_length: int,
        max_input_tokens: int,
        labels: Sequence[str] | None,
    ) -> None:
        self._model, self._examples, self._end = model, examples, end
        self._limits = (prompt_length, max_input_tokens)
        few = [
            Example(" ".join(labels or ()) or "a", target)
            for target in labels or examples.longest_targets(_LONGEST)
        ]
        # Errors in labels are raised before the first step, as for examples that are tokenized at once.
        encode(
            model, few, end=end, prompt_length=prompt_length, max_input_tokens=max_input_tokens, labels=labels
        )  # fmt: skip
        self._known = {one.target: model.encode_target(one.target, end=end) for one in few}
        self._longest = max(self._known.values(), key=len)
        self._cut: set[int] = set()
        self._ahead: tuple[tuple[int, ...], Future[Encoded]] | None = None
        self._worker: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def truncated(self) -> int:
        """How many of the inputs in use lost their middle."""
        return len(self._cut)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Returns the examples at `rows` as one batch."""
        found = self.part(rows)
        return Batch(found.inputs, found.targets)

    def part(self, rows: Sequence[int]) -> Encoded:
        """Returns the examples at `rows`.

        Raises:
            DataError: An input has no token.
        """
        if self._ahead is not None and self._ahead[0] == tuple(rows):
            found = self._ahead[1].result()
        else:
            found = self._encoded(rows)
        self._cut.update(row for row, lost in zip(rows, found.cut, strict=True) if lost)
        return found

    def prepare(self, rows: Sequence[int]) -> None:
        """Starts to tokenize the examples at `rows` in another thread, for the next `batch`."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "tokenize")
        self._ahead = (tuple(rows), self._worker.submit(self._encoded, tuple(rows)))

    def _encoded(self, rows: Sequence[int]) -> Encoded:
        examples = [self._examples[row] for row in rows]
        targets = [self._target(example.target) for example in examples]
        # A target of these may be the longest in tokens without being among the longest in characters.
        room = room_for_input(self._model, [self._longest, *targets], *self._limits)
        return encoded_in(self._model, examples, targets, room)

    def _target(self, target: str) -> list[int]:
        known = self._known.get(target)
        return self._model.encode_target(target, end=self._end) if known is None else known
