"""Rows of a store as a sequence of examples made on demand, and samples of them without making any."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from spoton.tasks.example import Example
from spoton.tasks.stored.store import Digests, Purpose, RowStore

RowNumbers = NDArray[np.unsignedinteger]
"""Row numbers in a store."""

_BEGINNING = 100_000
"""Number of rows in which each of few targets usually occurs."""


class StoredRows(Sequence[Example]):
    """Some rows of a store, in order.

    Args:
        store: The store.
        rows: `[N]` row numbers.
    """

    def __init__(self, store: RowStore, rows: RowNumbers) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> StoredRows: ...
    def __getitem__(self, place: int | slice) -> Example | StoredRows:
        if isinstance(place, slice):
            return StoredRows(self.store, self.rows[place])
        return self.store.example(int(self.rows[place]))

    def __iter__(self) -> Iterator[Example]:
        return map(self.store.example, map(int, self.rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredRows) and (
            self.store.folder == other.store.folder and np.array_equal(self.rows, other.rows)
        )

    def __hash__(self) -> int:
        return hash((self.store.folder, len(self.rows)))

    def codes(self) -> NDArray[np.int32] | None:
        """`[N]` the code of each target; None where there are too many distinct ones."""
        codes = self.store.codes
        return None if codes is None else codes[self.rows]

    def sample(self, size: int, labels: Sequence[str] | None, seed: int) -> StoredRows:
        """Returns the same as `spoton.tasks.splits.stratified_sample`."""
        return StoredRows(self.store, interleaved_rows(self.store, self.rows, labels, seed)[:size])

    def first_of(self, label: str | None, k: int, seed: int) -> tuple[int, list[Example]]:
        """Returns how many rows have a label (None: any), and the first `k` of them in the order of k-shot sampling."""
        rows, codes = self.rows, self.codes()
        if label is not None:
            assert codes is not None and self.store.words is not None
            known = self.store.words.index(label) if label in self.store.words else -1
            rows = rows[codes == known]
        chosen = ordered_rows(self.store, rows, "k-shot", seed)[:k]
        return len(rows), list(StoredRows(self.store, chosen))

    def repeated(self, counts: Mapping[str, int], most: int) -> StoredRows:
        """Repeats each row by the ratio of `most` to the count of its target, rounded; see `Task.balanced`."""
        words, codes = self.store.words, self.codes()
        assert words is not None and codes is not None
        times = np.array([max(1, round(most / counts[word])) if word in counts else 1 for word in words])
        return StoredRows(self.store, np.repeat(self.rows, times[codes]))

    def longest_targets(self, n: int) -> list[str]:
        """Returns up to `n` distinct targets, the longest in characters."""
        words = self.store.words
        if words is not None:
            return heapq.nlargest(n, words, key=len)
        longest: dict[str, None] = {}
        for example in self:
            longest[example.target] = None
            if len(longest) > 4 * n:
                longest = dict.fromkeys(heapq.nlargest(n, longest, key=len))
        return heapq.nlargest(n, longest, key=len)

    def different(self, size: int, labels: Sequence[str] | None, seed: int) -> Counter[Example]:
        """Returns a sample of the distinct examples, and how often each occurs."""
        digests = self.store.digests("order", seed)[self.rows]
        order = np.lexsort((digests[:, 1], digests[:, 0]))
        starts = group_starts(digests[order])
        counts = np.diff(np.append(starts, len(order)))
        first = self.rows[order[starts]]
        chosen = interleaved_rows(self.store, first, labels, seed)[:size]
        places = np.argsort(first, kind="stable")
        found = places[np.searchsorted(first[places], chosen)]
        return Counter(
            {self.store.example(int(row)): int(n) for row, n in zip(chosen, counts[found], strict=True)}
        )


def target_counts(examples: Sequence[Example]) -> Counter[str]:
    """Returns how often each target occurs, in the order of first occurrence."""
    if isinstance(examples, StoredRows) and examples.store.words is not None:
        codes, words = examples.codes(), examples.store.words
        assert codes is not None
        counts = np.bincount(codes, minlength=len(words))
        order = _first_seen(codes[:_BEGINNING])
        if len(order) < np.count_nonzero(counts):
            order = _first_seen(codes)
        return Counter({words[code]: int(counts[code]) for code in order})
    return Counter(example.target for example in examples)


def _first_seen(codes: NDArray[np.int32]) -> list[int]:
    """Returns the distinct codes in the order of first occurrence."""
    found, places = np.unique(codes, return_index=True)
    return [int(code) for code in found[np.argsort(places)]]


def ordered_rows(store: RowStore, rows: RowNumbers, purpose: Purpose, seed: int) -> RowNumbers:
    """Returns rows in the order of a purpose and a seed."""
    digests = store.digests(purpose, seed)[rows]
    return rows[np.lexsort((digests[:, 1], digests[:, 0]))]


def interleaved_rows(
    store: RowStore, rows: RowNumbers, labels: Sequence[str] | None, seed: int
) -> RowNumbers:
    """Returns rows as `spoton.tasks.splits.interleaved` does: every prefix holds the labels in proportion."""
    ordered = ordered_rows(store, rows, "order", seed)
    if labels is None:
        return ordered
    places = label_places(store, labels)[_codes(store)[ordered]]
    by_label = np.argsort(places, kind="stable")
    counts = np.bincount(places, minlength=len(labels))
    positions = np.empty(len(ordered))
    positions[by_label] = np.arange(len(ordered)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ordered[np.lexsort((places, (positions + 0.5) / counts[places]))]


def label_places(store: RowStore, labels: Sequence[str]) -> NDArray[np.int64]:
    """Returns `[W]` the index of each distinct target among the labels."""
    place = {label: number for number, label in enumerate(labels)}
    return np.array([place[word] for word in store.words or ()])


def group_starts(digests: Digests) -> NDArray[np.int64]:
    """Returns where a new value begins among sorted digests: indexes `[G]`, one for each different value."""
    new = np.ones(len(digests), dtype=bool)
    new[1:] = (digests[1:] != digests[:-1]).any(axis=1)
    return np.flatnonzero(new)


def _codes(store: RowStore) -> NDArray[np.int32]:
    assert store.codes is not None  # with a closed set of labels, there are few targets
    return store.codes
