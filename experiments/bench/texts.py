"""The texts that the arms read: batches of real texts, bucketed by length as an expert does it.

All arms get the same batches, so no arm wins by easier texts. All arms get buckets, since bucketing is free. spoton
does not need it (it never pads), and PEFT as documented ignores it (it pads to a fixed length).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoton.evaluation.encoding import Encoded, encode
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.tasks.catalog import load_task

TASK = "movie_sentiment"
# PEFT's examples pad to this length. The task's longest text is shorter, so no arm cuts a text.
FIXED_LENGTH = 128
# Texts are sorted within this many batches, as in PEFT's own length-bucketing sampler. Only these three of the sorted
# buckets run (at a sixth, a half, five sixths); together they have the length distribution of the whole pool.
POOL = 20
BUCKETS = (3, 10, 16)


@dataclass(frozen=True)
class Texts:
    """The training split of a task as token ids, and its label words.

    Attributes:
        encoded: Input and target ids of every example.
        labels: Ids of each label word.
    """

    encoded: Encoded
    labels: list[list[int]]

    def batches(self, size: int, round_number: int) -> list[Batch]:
        """Returns the batches of one round, by length; every round draws other texts."""
        draw = np.random.default_rng([round_number, size])
        pool = draw.permutation(len(self.encoded))[: POOL * size].tolist()
        pool.sort(key=lambda row: len(self.encoded.inputs[row]))
        return [self.encoded.batch(pool[bucket * size : (bucket + 1) * size]) for bucket in BUCKETS]

    def describe(self) -> dict[str, Any]:
        """Returns the length distribution, for the record."""
        lengths = [len(ids) for ids in self.encoded.inputs]
        return {
            "task": TASK,
            "examples": len(lengths),
            "tokens_median": statistics.median(lengths),
            "tokens_mean": round(statistics.mean(lengths), 1),
            "tokens_longest": max(lengths),
        }


def read_texts(model: FrozenModel) -> Texts:
    """Returns the task's training texts in the model's tokens."""
    task = load_task(TASK)
    assert task.labels is not None
    labels = [model.encode_target(label, end=False) for label in task.labels]
    room = FIXED_LENGTH - max(map(len, labels))
    encoded = encode(model, task.train, end=False, prompt_length=100, max_input_tokens=room)
    return Texts(encoded, labels)


def folded(batches: Sequence[Batch], vocabulary: int, end: int) -> list[Batch]:
    """Returns the same lengths in another vocabulary, for a model without tokenizer; targets get their end token."""

    def fold(ids: Sequence[int]) -> list[int]:
        return [2 + token % (vocabulary - 2) for token in ids]

    return [
        Batch([fold(ids) for ids in batch.inputs], [[*fold(ids), end] for ids in batch.targets])
        for batch in batches
    ]
