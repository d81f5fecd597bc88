"""Builds a task from rows with columns: decides labels and held-out rows, and writes notes for the user.

Does not know where the rows come from; `load_files` and `hub` read them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from jinja2 import Template

from spoton.errors import DataError
from spoton.tasks.cells import Row, lookup, plain_rows, require_text, target_text
from spoton.tasks.checks import oddities
from spoton.tasks.columns import Columns, listed, names_of
from spoton.tasks.data_spec import DataSpec
from spoton.tasks.instruction import make_instruction
from spoton.tasks.splits import FRACTIONS, stratified_split
from spoton.tasks.targets import labels_of, metrics_of, require_labels, require_several
from spoton.tasks.task import Example, Task
from spoton.tasks.template import CUE, column_template, compile_template, render, template_columns


def task_from_rows(
    splits: Mapping[str, Sequence[Row]],
    *,
    name: str,
    source: str,
    spec: DataSpec | None = None,
    license: str = "",
) -> Task:
    """Builds a task from the rows of `train` and, where they exist, `validation` and `test`.

    A missing split is taken out of train (a tenth each, at most 500 and 1,000 examples; see `stratified_split`). Rows
    with an empty input or target are dropped, and the notes say how many. The notes also report guesses: columns
    without a usual name, and whether targets are labels (see `targets`).

    Args:
        splits: Rows by split name.
        name: Name of the task.
        source: Where the rows came from.
        spec: How to read them.
        license: License of the data.

    Raises:
        DataError: A column is missing, cells are not text, no rows are usable, there is only one class, a target is
            outside the labels, or there are too few rows to split.
    """
    spec = spec or DataSpec()
    plain = {split: plain_rows(rows) for split, rows in splits.items()}
    columns = Columns.choose(plain["train"], input=spec.input, target=spec.target, template=spec.template)
    compiled = compile_template(columns.template)
    notes = list(columns.notes)
    read = {split: _examples(rows, columns, compiled, split, notes) for split, rows in plain.items()}
    every = [example.target for split in read.values() for example in split]
    labels, reason = labels_of(every, spec.labels, spec.metrics)
    notes += [reason] if reason else []
    if spec.hold_out:  # rows that are only scored may be of one class
        require_several(every, columns.target)
    require_labels(every, labels, columns.target)
    metrics = spec.metrics if spec.metrics is not None else metrics_of(every, labels)
    task = described(
        _complete(read, labels, spec, notes), columns, labels, metrics, spec, name, source, license
    )
    return replace(task, notes=(*notes, *(oddities(task) if spec.hold_out else ())))


def described(
    splits: tuple[Sequence[Example], Sequence[Example], Sequence[Example]],
    columns: Columns,
    labels: tuple[str, ...] | None,
    metrics: tuple[str, ...],
    spec: DataSpec,
    name: str,
    source: str,
    license: str = "",
) -> Task:
    """Returns the task of train, validation and test, without notes."""
    train, validation, test = splits
    return Task(
        name=name,
        family=spec.family or "",
        train=train,
        validation=validation,
        test=test,
        labels=labels,
        metrics=metrics,
        template=columns.template,
        source=source,
        target=columns.target,
        license=license,
        instruction=make_instruction(template_columns(columns.template), columns.target, labels),
    )


def _examples(
    rows: Sequence[Row], columns: Columns, template: Template, split: str, notes: list[str]
) -> list[Example]:
    examples = [example for example in examples_of(rows, columns, template, split) if example is not None]
    notes += dropped_rows(split, len(rows), len(examples))
    return examples


def examples_of(
    rows: Iterable[Row], columns: Columns, template: Template, split: str
) -> Iterator[Example | None]:
    """Yields the example of each row; None for a row whose input or target is empty.

    Args:
        rows: Rows with plain cells; may be iterated twice.
        columns: How to read them.
        template: Compiled template of `columns`.
        split: Name of the split, for messages.

    Raises:
        DataError: The target column is missing, or a cell is not text.
    """
    there = names_of(rows)
    if columns.target not in there and columns.target.partition(".")[0] not in there:
        raise DataError(
            f"The {split} rows have no column {columns.target!r}; they have {listed(there)}. "
            "Give all files the same columns."
        )
    blank = dict.fromkeys(there, "")
    # The template's output for a row of empty cells: an input that adds nothing to it is empty.
    bare = _bare(template, blank)
    simple = columns.input in there and columns.template == column_template(columns.input or "")
    for number, row in enumerate(rows, start=1):
        cell = None if columns.input is None else lookup(row, columns.input)
        if columns.input is not None:
            require_text(cell, columns.input)
        if simple and isinstance(cell, str):  # the same, in a tenth of the time
            text = f"{cell}\n{CUE}".strip()
        else:
            cells = blank | {name: "" if value is None else value for name, value in row.items()}
            text = render(template, cells)
        answer = target_text(lookup(row, columns.target), columns.target)
        yield Example(text, answer, row=number) if answer and text and text != bare else None


def dropped_rows(split: str, rows: int, kept: int) -> list[str]:
    """Returns a note on rows without an example, or nothing.

    Raises:
        DataError: No row has one.
    """
    if not kept:
        raise DataError(f"None of the {rows} {split} rows has both an input and a target. Check the columns.")
    if not rows - kept:
        return []
    return [f"{rows - kept} of {rows} {split} rows were dropped: their input or target is empty."]


def _bare(template: Template, blank: Row) -> str | None:
    try:
        return render(template, blank)
    except DataError:  # a template may compute with a value, or need a list
        return None


def _complete(
    read: Mapping[str, list[Example]], labels: tuple[str, ...] | None, spec: DataSpec, notes: list[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]:
    """Returns train, validation and test; missing splits are taken out of train."""
    held = held_out(read)
    train, validation, test = (
        tuple(read["train"]),
        tuple(read.get("validation", ())),
        tuple(read.get("test", ())),
    )
    if any(held) and spec.hold_out:
        train, carved_validation, carved_test = stratified_split(
            train, labels=labels, fractions=(1 - sum(held), held[0], held[1]), seed=spec.split_seed
        )
        validation, test = validation or carved_validation, test or carved_test
    tuned_on = {example.input for example in train}
    for split in ("validation", "test"):
        if shared := sum(example.input in tuned_on for example in read.get(split, ())):
            notes.append(shared_inputs(shared, len(read[split]), split))
    return train, validation, test


def held_out(given: Collection[str]) -> list[float]:
    """Returns the shares of train to take out for validation and test: 0 for a given split."""
    return [
        0.0 if split in given else share
        for split, share in zip(("validation", "test"), FRACTIONS[1:], strict=True)
    ]


def shared_inputs(shared: int, rows: int, split: str) -> str:
    """Returns a note on inputs that are both tuned on and scored."""
    return f"{shared} of {rows} {split} inputs also occur in train."
