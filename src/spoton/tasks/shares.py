"""Divides groups of rows among train, validation and test by their sizes; knows neither rows nor labels."""

import math

import numpy as np
from numpy.typing import NDArray

_STARVED = 0.5
"""Train has too few rows below this part of its share: then a repeated text took them to another split."""


def share_of(fraction: float, most: int, count: int) -> float:
    """Returns the fraction of `count` examples that a split of at most `most` examples gets."""
    return min(fraction, most / count) if count else 0.0


def divided_groups(sizes: NDArray[np.int64], shares: tuple[float, float]) -> NDArray[np.int8]:
    """Returns `[G]` the split of each group of one label: 0 for train, 1 for validation, 2 for test.

    Test and then validation take the first group, and the next ones that fit into their share of the rows. Where that
    leaves train less than half its share, since a group is larger than a split, the largest group stays in train and
    the shares are of the groups.

    Args:
        sizes: `[G]` number of rows of each group, in the order of the seed.
        shares: Shares of validation and test; a share of 0 leaves that split empty.
    """
    rows = int(sizes.sum())
    split = np.zeros(len(sizes), dtype=np.int8)
    for number, share in ((2, shares[1]), (1, shares[0])):
        waiting = np.flatnonzero(split == 0)
        room = math.floor(share * rows)
        first = waiting[: int(share > 0)]  # even if it does not fit
        split[first] = number
        split[_fitting(waiting[len(first) :], sizes, room - int(sizes[first].sum()), len(waiting))] = number
    left = int(sizes[split == 0].sum())
    wanted = 1 + int(shares[0] > 0) + int(shares[1] > 0)
    # Without repeated texts every group has one row, and the split above is the one that data hashes and cards name.
    is_usual = len(sizes) >= wanted and int(sizes.max()) == 1
    if not is_usual and left < _STARVED * (1 - sum(shares)) * rows:
        return _divided_by_number(sizes, shares)
    return split


def _divided_by_number(sizes: NDArray[np.int64], shares: tuple[float, float]) -> NDArray[np.int8]:
    """Returns the split of each group by shares of their number; the largest group stays in train."""
    rows, split = int(sizes.sum()), np.zeros(len(sizes), dtype=np.int8)
    free = np.ones(len(sizes), dtype=bool)
    free[np.argmax(sizes)] = False
    # The other split of the two keeps a group to take.
    for number, share, others in ((2, shares[1], int(shares[0] > 0)), (1, shares[0], 0)):
        waiting = np.flatnonzero(free)
        if not share or not len(waiting):
            continue
        most = max(1, min(math.floor(share * len(sizes)), len(waiting) - others))
        taken = _fitting(waiting, sizes, math.floor(share * rows), most)
        if not len(taken):
            taken = waiting[[np.argmin(sizes[waiting])]]
        split[taken], free[taken] = number, False
    return split


def _fitting(groups: NDArray[np.int64], sizes: NDArray[np.int64], room: int, most: int) -> NDArray[np.int64]:
    """Returns the first groups, at most `most`, that fit into `room` rows."""
    taken: list[int] = []
    for group in groups:
        if room <= 0 or len(taken) == most:
            break
        if sizes[group] <= room:
            taken.append(int(group))
            room -= int(sizes[group])
    return np.array(taken, dtype=np.int64)
