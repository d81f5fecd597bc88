"""Reports what is suspicious in a task's rows: near-equal labels, contradictions, unlearnable classes."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from spoton.tasks.metrics import number
from spoton.tasks.stored.rows import target_counts
from spoton.tasks.stored.split import Contradictions, stored_contradictions
from spoton.tasks.task import Task

_SHOWN = 3
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\u00ad\x00-\x1f\x7f]")

_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")
"""Does not match the signs at the end of the grade B- and in front of -inf."""
_QUOTES = re.compile("[\"'`\u00b4\u2018-\u201f\u00ab\u00bb]")
_EMPTY = frozenset(
    "NaN nan -nan NA N/A n/a <NA> NULL null None NaT #N/A #REF! #VALUE! #NAME? #DIV/0! #NUM! #NULL!".split()
)
"""What programs write for a cell without a value."""
_JOINED = re.compile(r"[;,|]")


def oddities(task: Task) -> tuple[str, ...]:
    """Returns sentences on oddities in the rows of a task with a closed set of labels; none if nothing is odd.

    Args:
        task: The task, of any source.
    """
    if task.labels is None:
        return ()
    return (
        *_near_labels(task),
        *_empty_labels(task),
        *_joined_labels(task),
        *_contradictions(task),
        *_without_training_rows(task),
    )


def _near_labels(task: Task) -> list[str]:
    """Reports labels that a person would read as the same."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in task.labels or ():
        alike[_same(label)].append(label)
    groups = [labels for labels in alike.values() if len(labels) > 1]
    if not groups:
        return []
    counts = task.targets()
    listed = "; ".join(
        " and ".join(f"{_visible(label, labels)} ({counts[label]} rows)" for label in labels)
        for labels in groups[:_SHOWN]
    )
    more = f", and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    return [
        "Labels that differ only in case, space, closing or quotation marks, invisible characters or encoding count as "
        f"different: {listed}{more}. Write each in one way."
    ]


def _empty_labels(task: Task) -> list[str]:
    """Reports labels that stand for a cell without a value."""
    counts = task.targets()
    empty = [label for label in task.labels or () if label in _EMPTY and counts[label]]
    return [
        f"The label {label!r} ({counts[label]} rows) is what programs write for a cell without a value. If it stands "
        "for none, empty these cells; rows without a target are left out."
        for label in empty
    ]


def _joined_labels(task: Task) -> list[str]:
    """Reports labels that list other labels, as in cells with several."""
    parts = {
        label: [part.strip(" '\"") for part in _JOINED.split(label.strip("[](){}"))]
        for label in task.labels or ()
    }
    single = {names[0] for names in parts.values() if len(names) == 1}
    joined = [label for label, names in parts.items() if len(names) > 1 and single.issuperset(names)]
    if not joined:
        return []
    return [
        f"{len(joined)} of {len(parts)} labels {'is a list' if len(joined) == 1 else 'are lists'} of others, such as "
        f"{joined[0]!r}, and each list is read as a label of its own. For several labels a row, make one task of each, "
        "with the targets yes and no."
    ]


def _same(label: str) -> str:
    """Returns the form that two spellings of one label share."""
    value = number(label)
    if value is not None:
        return repr(value)
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", label))
    words = " ".join(_BETWEEN_WORDS.sub(" ", plain.casefold()).split())
    return _QUOTES.sub("", words).strip().rstrip(".,;:!") or words


def _visible(label: str, others: Sequence[str]) -> str:
    """Returns a label that is distinct from the others: with escapes where they would look the same."""
    composed = [unicodedata.normalize("NFC", other) for other in others]
    same = composed.count(unicodedata.normalize("NFC", label)) > 1
    return ascii(label) if same else repr(label)


def _contradictions(task: Task) -> list[str]:
    """Reports inputs that have different labels in different rows."""
    found = stored_contradictions(task.train, task.validation, task.test)
    if found is None:
        targets: dict[str, set[str]] = defaultdict(set)
        for example in (*task.train, *task.validation, *task.test):
            if not example.question and not example.references:
                targets[example.input].add(example.target)
        several = [(text, labels) for text, labels in targets.items() if len(labels) > 1]
        first = several[0] if several else ("", set[str]())
        found = Contradictions(len(several), len(targets), first[0], sorted(first[1]))
    if not found.several:
        return []
    line = " ".join(found.text.split())
    shown = line if len(line) <= 60 else f"{line[:57]}..."
    return [
        f"{found.several} of {found.inputs} different inputs have rows with different labels, such as {shown!r} "
        f"({', '.join(found.targets[:5])}). No model can be right on all of these; correct or remove them."
    ]


def _without_training_rows(task: Task) -> list[str]:
    """Reports labels that are scored but have no training rows."""
    taught = target_counts(task.train)
    missing = [label for label in task.labels or () if label not in taught]
    asked = {*target_counts(task.validation), *target_counts(task.test)}
    wanted = [label for label in missing if label in asked]
    if not missing:
        return []
    shown = ", ".join(map(repr, (wanted or missing)[:5])) + (", ..." if len(wanted or missing) > 5 else "")
    held_out = " though validation or test rows have" if wanted else ""
    return [f"No training row has the label {shown}{held_out}. It cannot be learned; add rows of it."]
