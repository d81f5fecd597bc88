"""The parts of a report in every format: sections of paragraphs, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from spoton.study.results.score_arrays import Mean

UNKNOWN = "\N{EN DASH}"
"""Shown for an unknown number."""

DROPPED = "\N{DAGGER}"
"""Marks the score of a cell that successive halving ended early."""

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Value:
    """A number in a table, as text for readers and as numbers for CSV files.

    Attributes:
        text: Text such as `97.0 ± 1.1 (3)`.
        numbers: The number itself under "", and `std` and `n` if known; None: unknown.
    """

    text: str
    numbers: Mapping[str, float | None]

    def __str__(self) -> str:
        return self.text

    def marked(self, mark: str) -> Value:
        """Returns the value with a mark after its text."""
        return Value(self.text + mark, self.numbers)


TableCell: TypeAlias = str | Value


@dataclass(frozen=True)
class Table:
    """A table, the same in every format.

    Attributes:
        name: Name of its CSV file.
        columns: Headings.
        rows: Cells.
        folded: Heading of a collapsed long table; None: the table is always visible.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    folded: str | None = None

    @property
    def filled(self) -> Table:
        """The table without its empty columns."""
        full = [
            i
            for i in range(len(self.columns))
            if any(str(row[i]) not in ("", UNKNOWN) for row in self.rows) or not self.rows
        ]
        return Table(
            self.name,
            [self.columns[i] for i in full],
            [[row[i] for i in full] for row in self.rows],
            self.folded,
        )

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [
            any(isinstance(row[i], Value) for row in self.rows)
            and all(isinstance(row[i], Value) or row[i] in ("", UNKNOWN) for row in self.rows)
            for i in range(len(self.columns))
        ]


@dataclass(frozen=True)
class Picture:
    """The place of a figure.

    Attributes:
        name: Name of the figure.
        caption: What the figure shows.
    """

    name: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading and its content.

    Attributes:
        title: The heading.
        blocks: Paragraphs, tables, pictures.
        level: 2, or 3 for a subsection of the previous section.
    """

    title: str
    blocks: Sequence[Content]
    level: int = 2

    @property
    def anchor(self) -> str:
        """The id of the section, for links; sections of similar titles may have the same (see `distinct`)."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower()).strip("-")


Content: TypeAlias = str | Table | Picture


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Returns names that all differ, also where case is ignored, as in some file systems.

    A name that occurred before gets a number.

    Args:
        names: Ids or names of files.
        taken: Names that are used elsewhere.

    Examples:
        >>> distinct(["a-b", "a-b", "A-B", "c"], taken=["c"])
        ['a-b', 'a-b-2', 'A-B-3', 'c-2']
    """
    used = {name.casefold() for name in taken}
    found = []
    for name in names:
        candidate, times = name, 1
        while candidate.casefold() in used or not candidate:
            times += 1
            candidate = f"{name}-{times}"
        used.add(candidate.casefold())
        found.append(candidate)
    return found


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> Value:
    """Returns a number; a dash if it is unknown."""
    if value is None or not math.isfinite(value):
        return Value(UNKNOWN, {"": None})
    text = f"{value:{'+' if sign else ''}z.{digits}f}"  # z: no minus sign before zeros
    return Value(text.replace("-", _MINUS), {"": value})


def count(value: int | None) -> Value:
    """Returns an integer; a dash if it is unknown."""
    return Value(UNKNOWN if value is None else f"{value:,}", {"": value})


def spread(mean: Mean, digits: int = 1, *, sign: bool = False, seeds: bool = True) -> Value:
    """Returns mean ± standard deviation (n)."""
    if not math.isfinite(mean.mean):
        return Value(UNKNOWN, {"": None})
    deviation = "" if math.isnan(mean.std) else f" ± {mean.std:.{digits}f}"
    text = f"{number(mean.mean, digits, sign=sign)}{deviation}" + (f" ({mean.n})" if seeds and mean.n else "")
    numbers = {"": mean.mean, "std": None if math.isnan(mean.std) else mean.std}
    return Value(text, numbers | ({"n": mean.n or None} if seeds else {}))


def probability(value: float | None) -> Value:
    """Returns a p-value."""
    if value is None or not math.isfinite(value):
        return Value(UNKNOWN, {"": None})
    return Value(f"{value:.3f}" if value >= 0.001 else f"{value:.0e}", {"": value})


def percent(share: float) -> Value:
    """Returns a share as a percentage; a CSV file holds the share."""
    if not math.isfinite(share):
        return Value(UNKNOWN, {"": None})
    return Value(f"{100 * share:z.0f} %".replace("-", _MINUS), {"": share})


def interval(low: float, high: float, digits: int = 1) -> Value:
    """Returns both ends of an interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return Value(UNKNOWN, {"low": None, "high": None})
    return Value(
        f"{number(low, digits, sign=True)} to {number(high, digits, sign=True)}", {"low": low, "high": high}
    )


def mean_of(document: Mapping[str, Any]) -> Mean:
    """Returns a mean from its plain values."""
    mean, std = (math.nan if document[name] is None else float(document[name]) for name in ("mean", "std"))
    return Mean(mean, std, document["n"] or 0)


def yes_or_no(value: bool | None) -> str:
    """Returns yes or no; a dash if it is unknown."""
    return {True: "yes", False: "no", None: UNKNOWN}[value]
