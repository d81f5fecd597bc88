"""From a step number to the rows of its batch.

Stateless: the batch of a step follows from seed and step alone. So a resumed run equals an uninterrupted one (to the
last bit with the same number of threads).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def rows_of_step(n_examples: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Returns the rows of the batch of `step` (from 0): consecutive slices of one shuffled epoch after another."""
    rows = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        epoch, index = divmod(place, n_examples)
        rows.append(int(_order(n_examples, seed, epoch)[index]))
    return rows


@lru_cache(maxsize=4)  # shuffles a large data set once, not for every row
def _order(n_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of examples in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n_examples)
