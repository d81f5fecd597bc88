"""From rows with columns to a task: which column is what, which targets are labels, who is held out.

Knows nothing of where the rows came from; `files` and `hub` bring them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template

from spoton.errors import DataError
from spoton.tasks.instruction import make_instruction
from spoton.tasks.metrics import number
from spoton.tasks.splits import FRACTIONS, stratified_split
from spoton.tasks.task import Example, Task
from spoton.tasks.template import column_template, compile_template, render, template_columns

Row = Mapping[str, Any]

INPUT_NAMES = ("text", "input", "sentence", "question")
TARGET_NAMES = ("label", "target", "answer", "class")
MOST_LABELS = 20
LONGEST_LABEL = 5  # words
_MOST_NAMED = 50  # columns, in an error


@dataclass(frozen=True)
class Columns:
    """How a row becomes an example: an input column or a template, and a target column."""

    template: str
    target: str

    @classmethod
    def choose(
        cls, there: Sequence[str], *, input: str | None, target: str | None, template: str | None
    ) -> "Columns":
        """Settle the columns; those not named are looked for under their usual names.

        Raises:
            DataError: A named column is not there, or none of the usual names is.
        """
        if template is None:
            template = column_template(_column(there, input, INPUT_NAMES, "--input"))
        elif input is not None:
            raise DataError(
                "Both an input column and a template are given. Keep one of --input and --template."
            )
        return cls(template=template, target=_column(there, target, TARGET_NAMES, "--target"))


def task_from_rows(
    splits: Mapping[str, Sequence[Row]],
    *,
    name: str,
    source: str,
    input: str | None = None,
    target: str | None = None,
    template: str | None = None,
    labels: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    family: str = "",
    license: str = "",
    seed: int = 0,
) -> Task:
    """Build a task from the rows of `train` and, where they exist, `validation` and `test`.

    A split that is not given is taken out of train (a tenth each, at most 500 and 1,000 examples; see
    `stratified_split`). Rows with an empty input or target are dropped, and the notes say how many. Targets
    are labels if `labels` says so, or if there are at most 20 different ones of at most five words that occur
    twice on average; more than 20 different numbers are scored by correlation; other targets are open.

    Args:
        splits: Rows by split name.
        name: Name of the task.
        source: Where the rows came from.
        input: Column of the input; its template is the text followed by "Answer:" on a line of its own.
        target: Column of the target.
        template: Jinja template of the input over all columns, in place of `input`.
        labels: The closed set of targets in its order.
        metrics: Names in `METRICS`, the main one first.
        family: What kind of task it is.
        license: License of the data.
        seed: Decides the splits.

    Raises:
        DataError: A missing column, no usable rows, one class only, a target outside `labels`, or too few
            rows to split.
    """
    columns = Columns.choose(_names(splits["train"]), input=input, target=target, template=template)
    compiled = compile_template(columns.template)
    read: dict[str, list[Example]] = {}
    notes: list[str] = []
    for split, rows in splits.items():
        read[split] = _examples(rows, columns, compiled, split, notes)
    every = [example.target for split in read.values() for example in split]
    closed = tuple(labels) if labels is not None else _labels(every)
    _require_labels(every, closed, columns.target)
    train, validation, test = _complete(read, closed, seed, notes)
    return Task(
        name=name,
        family=family,
        train=train,
        validation=validation,
        test=test,
        labels=closed,
        metrics=tuple(metrics) if metrics is not None else _metrics(every, closed),
        template=columns.template,
        source=source,
        license=license,
        instruction=make_instruction(template_columns(columns.template), columns.target, closed),
        notes=tuple(notes),
    )


def _column(there: Sequence[str], wanted: str | None, usual: Sequence[str], option: str) -> str:
    if wanted is not None:
        if wanted in there:
            return wanted
        found = f"There is no column {wanted!r}"
    else:
        guess = next((column for column in usual if column in there), None)
        if guess is not None:
            return guess
        found = f"No column is named {', '.join(usual[:-1])} or {usual[-1]}"
    raise DataError(f"{found}. Columns there: {_named(there)}. Name one with {option}.")


def _named(columns: Sequence[str]) -> str:
    """Columns for an error: all, or the first of very many."""
    more = f", ... ({len(columns):,} in all)" if len(columns) > _MOST_NAMED else ""
    return ", ".join(map(repr, columns[:_MOST_NAMED])) + more


def _names(rows: Iterable[Row]) -> list[str]:
    """All column names in the order of their first appearance; JSONL rows need not agree."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _examples(
    rows: Sequence[Row], columns: Columns, template: Template, split: str, notes: list[str]
) -> list[Example]:
    if columns.target not in (there := _names(rows)):
        raise DataError(
            f"The {split} rows have no column {columns.target!r}; they have {_named(there)}. "
            "Give all files the same columns."
        )
    blank = dict.fromkeys(there, "")
    examples: list[Example] = []
    # What the template gives for a row of empty cells: the input is empty if nothing is added to that.
    bare = _bare(template, blank)
    for row in rows:
        cells = blank | {name: "" if value is None else value for name, value in row.items()}
        text, answer = render(template, cells), _text(cells[columns.target])
        if answer and text and text != bare:
            examples.append(Example(text, answer))
    if not examples:
        raise DataError(
            f"None of the {len(rows)} {split} rows has both an input and a target. Check the columns."
        )
    if dropped := len(rows) - len(examples):
        notes.append(f"{dropped} of {len(rows)} {split} rows were dropped: their input or target is empty.")
    return examples


def _bare(template: Template, blank: Row) -> str | None:
    try:
        return render(template, blank)
    except DataError:  # a template may well compute with a value, or need a list
        return None


def _text(value: object) -> str:
    """A cell as target: true/false as JSON writes them, whole floats as they are, no white space around."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _labels(targets: Sequence[str]) -> tuple[str, ...] | None:
    distinct = sorted(set(targets))
    short = all(len(target.split()) <= LONGEST_LABEL for target in distinct)
    repeated = len(targets) >= 2 * len(distinct)
    return tuple(distinct) if len(distinct) <= MOST_LABELS and short and repeated else None


def _require_labels(targets: Sequence[str], labels: tuple[str, ...] | None, column: str) -> None:
    counts = Counter(targets)
    if len(counts) == 1:
        raise DataError(
            f"Column {column!r} holds one class only, {targets[0]!r} in all {len(targets)} rows. "
            "There is nothing to learn; give rows of at least two."
        )
    strange = sorted(counts.keys() - set(labels)) if labels is not None else []
    if strange:
        shown = ", ".join(f"{target!r} ({counts[target]} rows)" for target in strange[:5])
        raise DataError(
            f"Column {column!r} has targets that are not among the labels {list(labels or ())}: {shown}. "
            "Add them to the labels or correct the rows."
        )


def _metrics(targets: Sequence[str], labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if labels is not None:
        return ("accuracy", "macro_f1")
    if len(set(targets)) > MOST_LABELS and all(number(target) is not None for target in targets):
        return ("pearson", "spearman")
    return ("exact_match", "token_f1")


def _complete(
    read: Mapping[str, list[Example]], labels: tuple[str, ...] | None, seed: int, notes: list[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]:
    """Train, validation and test, those not given taken out of train."""
    held = [
        0.0 if split in read else share
        for split, share in zip(("validation", "test"), FRACTIONS[1:], strict=True)
    ]
    train, validation, test = (
        tuple(read["train"]),
        tuple(read.get("validation", ())),
        tuple(read.get("test", ())),
    )
    if any(held):
        train, carved_validation, carved_test = stratified_split(
            train, labels=labels, fractions=(1 - sum(held), held[0], held[1]), seed=seed
        )
        validation, test = validation or carved_validation, test or carved_test
    tuned_on = {example.input for example in train}
    for split in ("validation", "test"):
        if shared := sum(example.input in tuned_on for example in read.get(split, ())):
            notes.append(f"{shared} of {len(read[split])} {split} inputs also occur in train.")
    return train, validation, test
