"""Array versions of `spoton.tasks.splits` and `spoton.tasks.checks` for rows of a store, with the same results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spoton.tasks.example import Example
from spoton.tasks.shares import divided_groups, share_of
from spoton.tasks.splits import require_enough
from spoton.tasks.stored.rows import RowNumbers, StoredRows, group_starts, interleaved_rows, label_places
from spoton.tasks.stored.store import RowStore


class Grouped:
    """Rows in groups of equal inputs, the groups in the order of a seed.

    Args:
        store: The rows' store.
        rows: `[N]` row numbers in the order of their file.
        seed: Seed of the order.

    Attributes:
        rows: `[N]` row numbers by group, each group in the order of the file.
        starts: `[G]` where each group begins.
        sizes: `[G]` number of rows in each group.
    """

    def __init__(self, store: RowStore, rows: RowNumbers, seed: int) -> None:
        digests = store.digests("split", seed)[rows]
        order = np.lexsort((digests[:, 1], digests[:, 0]))
        self.starts = group_starts(digests[order])
        self.rows = rows[order]
        self.sizes = np.diff(np.append(self.starts, len(order)))

    def of_rows(self) -> NDArray[np.int64]:
        """`[N]` the group of each row."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def divide(
    store: RowStore,
    rows: RowNumbers,
    *,
    labels: Sequence[str] | None,
    fractions: tuple[float, float, float],
    at_most: tuple[int, int],
    seed: int,
) -> tuple[RowNumbers, RowNumbers, RowNumbers]:
    """Splits rows as `spoton.tasks.splits.stratified_split` does, with inputs as groups.

    Raises:
        DataError: A label has too few distinct inputs to appear in each split.
    """
    grouped = Grouped(store, rows, seed)
    places = np.zeros(len(rows), dtype=np.int64)
    if labels is not None and store.codes is not None:
        places = label_places(store, labels)[store.codes[grouped.rows]]
    require_enough(_inputs_of_labels(grouped, places, labels), sum(share > 0 for share in fractions), labels)
    shares = (share_of(fractions[1], at_most[0], len(rows)), share_of(fractions[2], at_most[1], len(rows)))
    split = np.zeros(len(grouped.sizes), dtype=np.int8)
    strata = places[grouped.starts]
    for stratum in np.unique(strata):
        groups = np.flatnonzero(strata == stratum)
        split[groups] = divided_groups(grouped.sizes[groups], shares)
    of_rows = np.repeat(split, grouped.sizes)
    train, validation, test = (
        interleaved_rows(store, grouped.rows[of_rows == number], labels, seed) for number in (0, 1, 2)
    )
    return train, validation, test


def shared_with(store: RowStore, rows: RowNumbers, train: RowNumbers, seed: int) -> int:
    """Returns how many rows have an input that also occurs in `train`."""
    digests = store.digests("split", seed)
    return int(np.isin(digests[rows][:, 0], digests[train][:, 0]).sum())


@dataclass(frozen=True)
class Contradictions:
    """Inputs that have different targets in different rows.

    Attributes:
        several: Number of such inputs.
        inputs: Number of distinct inputs.
        text: The first contradictory input.
        targets: Its targets, sorted.
    """

    several: int
    inputs: int
    text: str = ""
    targets: list[str] = field(default_factory=list)


def stored_contradictions(*splits: Sequence[Example]) -> Contradictions | None:
    """Returns contradictions among rows of one store with few distinct targets; None for other rows."""
    stored = [split for split in splits if isinstance(split, StoredRows)]
    if len(stored) < len(splits) or stored[0].store.words is None:
        return None
    store, rows = stored[0].store, np.concatenate([split.rows for split in stored])
    words, all_codes = store.words or [], store.codes
    assert all_codes is not None
    grouped = Grouped(store, rows, store.seed)
    codes = all_codes[grouped.rows]
    differs = codes != np.repeat(codes[grouped.starts], grouped.sizes)
    several = np.unique(grouped.of_rows()[differs])
    if not len(several):
        return Contradictions(0, len(grouped.sizes))
    places = np.empty(len(store), dtype=np.int64)
    places[rows] = np.arange(len(rows))
    members = np.flatnonzero(np.isin(grouped.of_rows(), several))
    first = members[np.argmin(places[grouped.rows[members]])]
    group = grouped.of_rows()[first]
    same = codes[grouped.starts[group] : grouped.starts[group] + grouped.sizes[group]]
    targets = sorted({words[code] for code in same})
    text = store.example(int(grouped.rows[first])).input
    return Contradictions(len(several), len(grouped.sizes), text, targets)


def _inputs_of_labels(
    grouped: Grouped, places: NDArray[np.int64], labels: Sequence[str] | None
) -> Mapping[str, int]:
    """Returns the number of distinct inputs of each label."""
    if labels is None:
        return {"": len(grouped.sizes)} if len(grouped.sizes) else {}
    pairs = np.unique(grouped.of_rows() * len(labels) + places)
    counts = np.bincount(pairs % len(labels), minlength=len(labels))
    return {label: int(count) for label, count in zip(labels, counts, strict=True) if count}
