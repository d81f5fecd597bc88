"""Splits and samples of examples that depend only on the examples and a seed.

Hashing each example with the seed decides their order, not a random generator. So the order is the same on every
machine and Python version, and a smaller sample is always part of a larger one of the same seed. Knows neither
files nor whole tasks.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from spoton.arguments import is_count, shown
from spoton.errors import DataError
from spoton.files import sha256_of_text
from spoton.tasks.example import Example
from spoton.tasks.shares import divided_groups, share_of
from spoton.tasks.stored.rows import StoredRows

FRACTIONS = (0.8, 0.1, 0.1)
AT_MOST = (500, 1000)
_MOST_NAMED = 10  # labels, in an error

_GroupKey = TypeVar("_GroupKey", bound=Hashable)
V = TypeVar("V")


def stratified_split(
    examples: Sequence[Example],
    *,
    labels: Sequence[str] | None,
    fractions: tuple[float, float, float] = FRACTIONS,
    at_most: tuple[int, int] = AT_MOST,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]:
    """Divides examples into train, validation and test, each label in proportion.

    Examples of one group are never in two splits. Where `groups` is not given, the input is the group, so the same
    text cannot be both tuned on and tested on. Each label gets at least one example in every split, and a text that is
    repeated more often than a split has rows stays in train.

    Args:
        examples: All examples.
        labels: The closed set of targets, or None for open targets (then there is one stratum).
        fractions: Shares of train, validation and test; a share of 0 leaves that split empty.
        at_most: Largest validation and test split, since both cost time in every run; the rest is train.
        groups: One key per example, for examples that share more than their input (a passage, a contract).
        seed: Seed of the split.

    Raises:
        DataError: A label has too few distinct inputs to appear in each split.
    """
    groups = groups if groups is not None else [example.input for example in examples]
    require_enough(_inputs_of_labels(examples, labels, groups), sum(share > 0 for share in fractions), labels)
    strata = _strata(examples, labels, groups, seed)
    shares = (
        share_of(fractions[1], at_most[0], len(examples)),
        share_of(fractions[2], at_most[1], len(examples)),
    )
    splits: list[list[Example]] = [[], [], []]
    for stratum in strata.values():
        numbers = divided_groups(np.array([len(group) for group in stratum], dtype=np.int64), shares)
        for group, number in zip(stratum, numbers, strict=True):
            splits[number] += [examples[i] for i in group]
    train, validation, test = (tuple(interleaved(split, labels, seed)) for split in splits)
    return train, validation, test


def stratified_sample(
    examples: Sequence[Example], size: int, labels: Sequence[str] | None, seed: int
) -> Sequence[Example]:
    """Returns `size` examples (all, if there are fewer), each label in proportion."""
    if isinstance(examples, StoredRows):
        return examples.sample(size, labels, seed)
    return tuple(interleaved(examples, labels, seed)[:size])


def k_per_label(
    examples: Sequence[Example], k: int, labels: Sequence[str] | None, seed: int
) -> Sequence[Example]:
    """Returns `k` examples of each label, or `k` in total where targets are open.

    Raises:
        DataError: `k` is below 1, or a label has fewer than `k` examples.
    """
    if not is_count(k):
        raise DataError(
            f"k-shot sampling needs k of at least 1, a whole number; found {shown(k)}. Choose such a k."
        )
    chosen: list[Example] = []
    for label in labels if labels is not None else [None]:
        if isinstance(examples, StoredRows):
            there, first = examples.first_of(label, k, seed)
        else:
            ordered = _hashed(
                (example for example in examples if label is None or example.target == label), "k-shot", seed
            )
            there, first = len(ordered), ordered[:k]
        if there < k:
            what = "train examples" if label is None else f"train examples with label {label!r}"
            raise DataError(f"Asked for {k}, found {there} {what}. Choose k of at most {there}.")
        chosen += first
    return tuple(interleaved(chosen, labels, seed))


def interleaved(examples: Iterable[Example], labels: Sequence[str] | None, seed: int) -> list[Example]:
    """Returns the examples in an order whose every prefix holds the labels in proportion."""
    ordered = _hashed(examples, "order", seed)
    if labels is None:
        return ordered
    by_label = _grouped((example.target, example) for example in ordered)
    placed = [
        ((position + 0.5) / len(same), labels.index(label), example)
        for label, same in by_label.items()
        for position, example in enumerate(same)
    ]
    return [example for _, _, example in sorted(placed, key=lambda each: each[:2])]


def _strata(
    examples: Sequence[Example], labels: Sequence[str] | None, groups: Sequence[str], seed: int
) -> dict[str, list[list[int]]]:
    """Returns label -> its groups in the order of the seed, each a list of indices; a group's first label counts."""
    members = _grouped(zip(groups, range(len(examples)), strict=True))
    order = sorted(members, key=lambda group: sha256_of_text(["split", str(seed), group]))
    return _grouped(
        (examples[members[group][0]].target if labels is not None else "", members[group]) for group in order
    )


def _inputs_of_labels(
    examples: Sequence[Example], labels: Sequence[str] | None, groups: Sequence[str]
) -> dict[str, int]:
    """Returns the number of distinct inputs of each label; for open targets, of all."""
    pairs = zip((example.target if labels is not None else "" for example in examples), groups, strict=True)
    return {label: len(set(same)) for label, same in _grouped(pairs).items()}


def require_enough(counts: Mapping[str, int], wanted: int, labels: Sequence[str] | None) -> None:
    """Refuses rows in which a label cannot appear in each split.

    Args:
        counts: Number of distinct inputs of each label.
        wanted: Number of splits.
        labels: The closed set of targets, or None for open ones.

    Raises:
        DataError: Names the labels.
    """
    small = {label: count for label, count in sorted(counts.items()) if count < wanted}
    if small or not counts:
        shown_few = list(small.items())[:_MOST_NAMED]
        found = ", ".join(f"{label!r} has {count}" if label else str(count) for label, count in shown_few)
        found += f", and {len(small) - _MOST_NAMED} more labels" if len(small) > _MOST_NAMED else ""
        raise DataError(
            f"Too few different inputs to split: {found or 0}; at least {wanted} are needed"
            f"{' for each label' if labels is not None else ''}. "
            "Add rows, merge rare labels, or give separate files with --validation and --test. `evaluate --split all` "
            "scores rows without splitting them."
        )


def _hashed(examples: Iterable[Example], purpose: str, seed: int) -> list[Example]:
    # The purpose keeps, for example, the k-shot sample of a seed independent of the split of the same seed.
    return sorted(
        examples, key=lambda example: sha256_of_text([purpose, str(seed), example.input, example.target])
    )


def _grouped(pairs: Iterable[tuple[_GroupKey, V]]) -> dict[_GroupKey, list[V]]:
    groups: dict[_GroupKey, list[V]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)
