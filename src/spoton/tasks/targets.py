"""Decides the kind of a task from its targets: a closed set of labels, numbers, or open text. Always gives a reason."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spoton.errors import DataError
from spoton.tasks.data_spec import LabelChoice
from spoton.tasks.metrics import CORRELATIONS, number

_OF_LABELS = ("accuracy", "macro_f1")
_OF_NUMBERS = ("pearson", "spearman")
_OF_TEXT = ("exact_match", "token_f1")
FEW = 20
"""Up to this many distinct targets are labels if they are short and occur twice on average."""
MANY = 200
"""Up to this many are labels if they occur `OFTEN` times on average; of numbers, only integers without a gap."""
OFTEN = 4
LONGEST_LABEL = 5
"""Most words of a short target. Targets that occur `OFTEN` times may be longer."""
_MARKED_NUMBER = re.compile(r"[+-]?\W{0,2}\d[\d.,'\u2019\s]*\W{0,2}")
"""A number with a thousands separator, a decimal comma, or the sign of a currency or unit: 1,370 or $5 or 40%."""


@dataclass(frozen=True)
class TargetFacts:
    """Facts about all targets.

    Attributes:
        rows: Number of rows with a target.
        distinct: Number of distinct targets.
        numbers: Whether all are numbers.
        short: Whether all have at most `LONGEST_LABEL` words.
        words: The distinct targets, sorted; None where there are too many to keep.
    """

    rows: int
    distinct: int
    numbers: bool
    short: bool
    words: Sequence[str] | None

    @classmethod
    def of(cls, targets: Iterable[str]) -> "TargetFacts":
        """Returns the facts about targets in memory; a `Counter` gives how often each occurs."""
        counts = Counter(targets)
        words = sorted(counts)
        return cls(counts.total(), len(words), all(map(_is_number, words)), all(map(is_short, words)), words)


def is_short(target: str) -> bool:
    """Returns whether a target has few words, as labels do."""
    return len(target.split()) <= LONGEST_LABEL


def labels_of(
    targets: Sequence[str] | TargetFacts, wanted: LabelChoice | None, metrics: Sequence[str] | None = None
) -> tuple[tuple[str, ...] | None, str]:
    """Returns the closed set of targets, or None if they are open, and a sentence on the decision.

    Args:
        targets: Targets of all rows, or facts about them.
        wanted: The user's choice; None: a guess.
        metrics: The user's metrics, which the sentence names for numbers; None: correlations.

    Returns:
        The labels in their order, and the sentence; empty if nothing was guessed.
    """
    if wanted == "none":
        return None, ""
    facts = targets if isinstance(targets, TargetFacts) else TargetFacts.of(targets)
    if wanted is not None and wanted != "auto":
        return wanted, ""
    distinct, each = facts.words, facts.rows / max(1, facts.distinct)
    if wanted == "auto":
        return tuple(distinct or ()), ""
    seen = f"{facts.distinct} different ones, {each:.1f} rows each"
    often = each >= OFTEN
    if distinct is not None and (
        (facts.distinct <= FEW and each >= 2 and (facts.short or often))
        or (FEW < facts.distinct <= MANY and often and (not facts.numbers or _without_gap(distinct)))
    ):
        return tuple(distinct), (
            f"Targets are read as labels: {seen}. `--labels none` reads them as open text"
            f"{' or numbers' if facts.numbers and facts.distinct > FEW else ''}."
        )
    if facts.numbers and facts.distinct > FEW:
        score = "correlation" if not metrics or metrics[0] in CORRELATIONS else metrics[0]
        why = f"numbers, scored by {score}: {seen}"
    else:
        why = f"open text, which is generated: {seen}{'' if facts.short else ', some of more than 5 words'}"
        if facts.distinct > FEW and distinct and all(map(_MARKED_NUMBER.fullmatch, distinct)):
            why += f". To score them as numbers, write {distinct[-1]!r} and the others with digits and a point only"
    return None, f"Targets are read as {why}. `--labels auto` reads each as a label."


def metrics_of(targets: Sequence[str] | TargetFacts, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the default metrics of a task, the main one first."""
    if labels is not None:
        return _OF_LABELS
    facts = targets if isinstance(targets, TargetFacts) else TargetFacts.of(targets)
    if facts.distinct > FEW and facts.numbers:
        return _OF_NUMBERS
    return _OF_TEXT


def metrics_with(metric: str, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the metrics of a task whose main metric is known: it, and those that `metrics_of` gives with it."""
    usual = [_OF_LABELS] if labels is not None else [few for few in (_OF_NUMBERS, _OF_TEXT) if metric in few]
    return tuple(dict.fromkeys((metric, *(name for few in usual for name in few))))


def require_labels(targets: Iterable[str], labels: Sequence[str] | None, column: str) -> None:
    """Refuses targets outside the labels.

    Raises:
        DataError: Names the first few, with their counts.
    """
    counts = Counter(targets)
    strange = sorted(counts.keys() - set(labels)) if labels is not None else []
    if strange:
        shown = ", ".join(f"{target!r} ({counts[target]} rows)" for target in strange[:5])
        raise DataError(
            f"Column {column!r} has targets that are not among the labels {list(labels or ())}: {shown}. "
            "Add them to the labels or correct the rows."
        )


def require_several(targets: Iterable[str], column: str) -> None:
    """Refuses targets that are all the same.

    Args:
        targets: Targets of all rows; a `Counter` gives how often each occurs.
        column: Their column.

    Raises:
        DataError: Names the only target.
    """
    counts = Counter(targets)
    if len(counts) == 1:
        raise DataError(
            f"Column {column!r} holds one class only, {next(iter(counts))!r} in all {counts.total()} rows. "
            "There is nothing to learn; give rows of at least two. `evaluate --split all` scores rows of one class."
        )


def _is_number(text: str) -> bool:
    return number(text) is not None


def _without_gap(numbers: Sequence[str]) -> bool:
    """Returns whether numbers are integers that run from 0 or 1 without a gap, like class codes."""
    if not all(text.isdecimal() for text in numbers):
        return False
    values = sorted(map(int, numbers))
    return values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1
