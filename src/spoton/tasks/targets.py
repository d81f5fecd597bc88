"""What kind of task the targets make: a closed set of labels, numbers, or open text. The reason is always told."""

from collections import Counter
from collections.abc import Sequence

from spoton.errors import DataError
from spoton.tasks.data_spec import Labels
from spoton.tasks.metrics import number

FEW = 20
"""Up to this many different targets are labels if they are short and occur twice on average."""
MANY = 200
"""Up to this many are if they occur `OFTEN` times on average; of numbers, only whole ones without a gap."""
OFTEN = 4
LONGEST_LABEL = 5
"""Words of the longest target that counts as short. Targets that occur `OFTEN` times may be longer."""


def labels_of(targets: Sequence[str], wanted: Labels | None) -> tuple[tuple[str, ...] | None, str]:
    """Returns the closed set of targets, or None if they are open, and a sentence on how that was decided.

    Args:
        targets: Of all rows.
        wanted: What the user asks for; None: a guess.

    Returns:
        The labels in their order, and the sentence; empty if nothing was guessed.
    """
    if wanted == "none":
        return None, ""
    counts = Counter(targets)
    if wanted is not None and wanted != "auto":
        return wanted, ""
    distinct, each = sorted(counts), len(targets) / max(1, len(counts))
    if wanted == "auto":
        return tuple(distinct), ""
    numbers = all(number(target) is not None for target in distinct)
    seen = f"{len(distinct)} different ones, {each:.1f} rows each"
    short = all(len(target.split()) <= LONGEST_LABEL for target in distinct)
    often = each >= OFTEN
    if (len(distinct) <= FEW and each >= 2 and (short or often)) or (
        FEW < len(distinct) <= MANY and often and (not numbers or _without_gap(distinct))
    ):
        return tuple(distinct), (
            f"Targets are read as labels: {seen}. `--labels none` reads them as open text"
            f"{' or numbers' if numbers and len(distinct) > FEW else ''}."
        )
    if numbers and len(distinct) > FEW:
        why = f"numbers, scored by correlation: {seen}"
    else:
        why = f"open text, which is generated: {seen}{'' if short else ', some of more than 5 words'}"
    return None, f"Targets are read as {why}. `--labels auto` reads each as a label."


def metrics_of(targets: Sequence[str], labels: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the metrics of a task whose user names none, the main one first."""
    if labels is not None:
        return ("accuracy", "macro_f1")
    if len(set(targets)) > FEW and all(number(target) is not None for target in targets):
        return ("pearson", "spearman")
    return ("exact_match", "token_f1")


def require_labels(targets: Sequence[str], labels: Sequence[str] | None, column: str) -> None:
    """Refuses targets outside the labels.

    Raises:
        DataError: Names the first few, with their numbers.
    """
    counts = Counter(targets)
    strange = sorted(counts.keys() - set(labels)) if labels is not None else []
    if strange:
        shown = ", ".join(f"{target!r} ({counts[target]} rows)" for target in strange[:5])
        raise DataError(
            f"Column {column!r} has targets that are not among the labels {list(labels or ())}: {shown}. "
            "Add them to the labels or correct the rows."
        )


def require_several(targets: Sequence[str], column: str) -> None:
    """Refuses targets that are all the same.

    Raises:
        DataError: Names the only one.
    """
    if len(set(targets)) == 1:
        raise DataError(
            f"Column {column!r} holds one class only, {targets[0]!r} in all {len(targets)} rows. "
            "There is nothing to learn; give rows of at least two."
        )


def _without_gap(numbers: Sequence[str]) -> bool:
    """Whether numbers are whole and run from 0 or 1 without a gap, as the codes of classes do."""
    if not all(text.isdecimal() for text in numbers):
        return False
    values = sorted(map(int, numbers))
    return values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1
