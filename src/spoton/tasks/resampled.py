"""Label metrics of many resamplings at once, from counts of each pair of target and answer.

scikit-learn takes milliseconds per call: negligible for one score, but ten seconds for the thousand resamplings of an
interval. The tests compare every formula here with scikit-learn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def resampled_counts(
    targets: Sequence[int], answers: Sequence[int], classes: int, samples: int, generator: Any
) -> Counts:
    """Returns `[S, C, C]`: how often each target (rows) got each answer (columns) in each resampling."""
    pairs = np.array(targets) * classes + np.array(answers)
    drawn = [
        np.bincount(pairs[generator.integers(len(pairs), size=len(pairs))], minlength=classes**2)
        for _ in range(samples)
    ]
    return np.array(drawn).reshape(samples, classes, classes)


def scores_of_counts(name: str, counts: Counts, labels: int) -> NDArray[np.float64]:
    """Returns `[S]` a label metric, 0 to 1, of every resampling.

    Args:
        name: `accuracy`, `f1`, `macro_f1` or `matthews`.
        counts: `[S, C, C]` from `resampled_counts`; the first classes are the labels.
        labels: Number of labels that `macro_f1` averages over.
    """
    right = counts.diagonal(axis1=1, axis2=2)
    asked, said, n = counts.sum(axis=2), counts.sum(axis=1), counts.sum(axis=(1, 2))
    if name == "accuracy":
        return np.asarray(right.sum(axis=1) / n)
    if name == "matthews":  # Gorodkin 2004, eq. 8
        covariance = n * right.sum(axis=1) - (asked * said).sum(axis=1)
        # In floating point: the fourth power of 60,000 rows is beyond 64 bits.
        spread = (n**2.0 - (asked**2).sum(axis=1)) * (n**2.0 - (said**2).sum(axis=1))
        return np.asarray(np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1)), 0.0))
    each = 2 * right / np.maximum(1, asked + said)
    return np.asarray(each[:, 1] if name == "f1" else each[:, :labels].mean(axis=1))
