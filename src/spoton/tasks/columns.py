"""Finds the input and target columns: named by the user, recognised by a usual name, or guessed.

A guess is always reported. Does not know where rows come from.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from spoton.errors import DataError
from spoton.tasks.cells import Row
from spoton.tasks.template import column_template, nested_template, reads_row, template_columns

INPUT_NAMES = ("text", "input", "sentence", "question", "prompt", "content", "review", "message", "document")
TARGET_NAMES = ("label", "target", "answer", "class", "category", "labels", "completion", "output")
_MOST_NAMED = 50  # columns, in an error
_MOST_CLASSES = 20  # a guessed target has at most this many different cells, each at least twice on average


@runtime_checkable
class Named(Protocol):
    """Rows that know their columns, since iterating over them is slow."""

    @property
    def names(self) -> list[str]:
        """All column names in the order of their first appearance."""


@dataclass(frozen=True)
class Columns:
    """How a row becomes an example.

    Attributes:
        template: Jinja template of the input.
        target: Column of the target.
        input: Column of the input; None where the user gave a template.
        notes: What was guessed, a sentence each.
    """

    template: str
    target: str
    input: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def choose(
        cls, rows: Iterable[Row], *, input: str | None, target: str | None, template: str | None
    ) -> "Columns":
        """Chooses the columns by the given names, else by usual names in any case, else by a guess.

        A guess takes the column with by far the longest texts as input, and the only other one with few distinct cells
        as target.

        Args:
            rows: The training rows, which may be iterated several times.
            input: Column of the input, if the user named it.
            target: Column of the target, if the user named it.
            template: Template of the input, instead of `input`.

        Raises:
            DataError: A named column is missing or none can be guessed (`option` says which), both an input column
                and a template are given, the template reads no column, or one column is both input and target.
        """
        there = names_of(rows)
        _require_template(template, input)
        answer = _named(rows, target, "target") or _usual(there, TARGET_NAMES)
        text = None
        if template is None:
            text = _named(rows, input, "input") or _usual(there, INPUT_NAMES)
        notes = []
        if answer is None:
            answer = _guessed_target(rows, [name for name in there if name != text])
            notes += (
                [f"The target is taken to be column {answer!r}; --target names another."] if answer else []
            )
            if answer and any(str(row.get(answer)).strip() == answer.strip() for row in rows):
                notes.append(
                    f"{answer!r} is also a cell of that column. If the file's first line is a row, it is missing from "
                    "the data; put a line with names of columns in front."
                )
        if template is None and text is None:
            text = _guessed_input(rows, [name for name in there if name != answer])
            notes += [f"The input is taken to be column {text!r}; --input names another."] if text else []
        missing = [
            (option, usual)
            for option, column, usual in (("input", text, INPUT_NAMES), ("target", answer, TARGET_NAMES))
            if column is None and not (option == "input" and template is not None)
        ]
        if missing:
            raise _no_column(there, *missing[0])
        assert answer is not None
        if text == answer:
            raise _same_column(there, answer)
        chosen = template or _template(text or "", there)
        if template is not None and answer in template_columns(template):
            notes.append(
                f"The template reads {answer!r}, the column of the target: the answer is in the input."
            )
        return cls(chosen, answer, text, tuple(notes))


def names_of(rows: Iterable[Row]) -> list[str]:
    """Returns all column names in the order of their first appearance; JSON rows may have different ones."""
    if isinstance(rows, Named):
        return rows.names
    return list(dict.fromkeys(name for row in rows for name in row))


def listed(columns: Sequence[str]) -> str:
    """Returns columns for an error message: all, or the first few of many."""
    more = f", ... ({len(columns):,} in all)" if len(columns) > _MOST_NAMED else ""
    return ", ".join(map(repr, columns[:_MOST_NAMED])) + more


def _require_template(template: str | None, input: str | None) -> None:
    """Refuses a template next to an input column, and one that reads no column.

    Raises:
        DataError: Says which.
    """
    if template is None:
        return
    if input is not None:
        raise DataError("Both an input column and a template are given. Keep one of --input and --template.")
    if not reads_row(template):
        raise DataError(
            f"The template {template[:200]!r} reads no column, so that all inputs would be the same. Write a column as "
            "{{ column }}."
        )


def _template(column: str, there: Sequence[str]) -> str:
    return column_template(column) if column in there else nested_template(column.split("."))


def _named(rows: Iterable[Row], wanted: str | None, option: str) -> str | None:
    """Returns the column that the user named, also as `column.key`."""
    if wanted is None:
        return None
    there = names_of(rows)
    if wanted in there:
        return wanted
    head, _, key = wanted.partition(".")
    nested = any(isinstance(row.get(head), Mapping) and key.partition(".")[0] in row[head] for row in rows)
    if nested and key:
        return wanted
    near = [name for name in there if name.strip().casefold() == wanted.strip().casefold()]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"There is no column {wanted!r}. Columns there: {listed(there)}.{hint} Name one with --{option}.",
        option=option,
        columns=tuple(there),
    )


def _usual(there: Sequence[str], usual: Sequence[str]) -> str | None:
    """Returns the first usual name among the columns, as spelled there."""
    written = {name.strip().casefold(): name for name in reversed(there)}
    return next((written[name] for name in usual if name in written), None)


def _guessed_target(rows: Iterable[Row], names: Sequence[str]) -> str | None:
    """Returns the only column with few distinct cells; None if there is none, or more than one."""
    distinct: dict[str, set[str]] = {name: set() for name in names}
    filled, total = Counter[str](), 0
    for row in rows:
        total += 1
        for name in names:
            if (cell := row.get(name)) not in (None, ""):
                filled[name] += 1
                if len(distinct[name]) <= _MOST_CLASSES:
                    distinct[name].add(str(cell).strip())
    fitting = [
        name
        for name, cells in distinct.items()
        if 2 <= len(cells) <= _MOST_CLASSES and filled[name] >= 2 * len(cells) and 2 * filled[name] > total
    ]
    return fitting[0] if len(fitting) == 1 else None


def _guessed_input(rows: Iterable[Row], names: Sequence[str]) -> str | None:
    """Returns the text column whose cells are at least twice as long as those of every other; None if there is none."""
    lengths = Counter[str]()
    for row in rows:
        for name in names:
            if isinstance(cell := row.get(name), str):
                lengths[name] += len(cell.strip())
    ranked = lengths.most_common(2)
    if not ranked or not ranked[0][1] or (len(ranked) > 1 and ranked[0][1] < 2 * ranked[1][1]):
        return None
    return ranked[0][0]


def _same_column(there: Sequence[str], column: str) -> DataError:
    return DataError(
        f"Column {column!r} is both the input and the target, so the answer would be in the input. Columns there: "
        f"{listed(there)}. Name others with --input and --target.",
        option="input",
        columns=tuple(there),
    )


def _no_column(there: Sequence[str], option: str, usual: Sequence[str]) -> DataError:
    return DataError(
        f"No column is named {', '.join(usual[:-1])} or {usual[-1]}, and none can be guessed. Columns there: "
        f"{listed(there)}. Name one with --{option}.",
        option=option,
        columns=tuple(there),
    )
