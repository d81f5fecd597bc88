"""What a report is made of, whatever it is written as: sections of paragraphs, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from spoton.study.results.score_arrays import Mean

UNKNOWN = "\N{EN DASH}"
"""What stands for a number that is not known."""

DROPPED = "\N{DAGGER}"
"""What marks a score of a cell that successive halving ended early."""

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Value:
    """A number in a table: how a reader sees it, and what a CSV file holds.

    Attributes:
        text: Such as ``97.0 ± 1.1 (3)``.
        numbers: The number itself under "", and perhaps ``std`` and ``n``; None: unknown.
    """

    text: str
    numbers: Mapping[str, float | None]

    def __str__(self) -> str:
        return self.text

    def marked(self, mark: str) -> Value:
        """The same with a mark behind the text."""
        return Value(self.text + mark, self.numbers)


Cell: TypeAlias = str | Value


@dataclass(frozen=True)
class Table:
    """A table, the same in every format.

    Attributes:
        name: What its CSV file is called.
        columns: Headings.
        rows: Cells.
        folded: What a long table is called that a reader opens; None: it stands open.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str | None = None

    @property
    def filled(self) -> Table:
        """The table without columns in which nothing is known."""
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
        name: Which one.
        caption: What it shows.
    """

    name: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading and what is under it.

    Attributes:
        title: The heading.
        blocks: Paragraphs, tables, pictures.
        level: 2, or 3 for a part of the section before.
    """

    title: str
    blocks: Sequence[Block]
    level: int = 2

    @property
    def anchor(self) -> str:
        """A name for links."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower()).strip("-")


Block: TypeAlias = str | Table | Picture


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> Value:
    """A number; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return Value(UNKNOWN, {"": None})
    text = f"{value:{'+' if sign else ''}z.{digits}f}"  # z: no minus before zeros
    return Value(text.replace("-", _MINUS), {"": value})


def count(value: int | None) -> Value:
    """A whole number."""
    return Value(UNKNOWN if value is None else f"{value:,}", {"": value})


def spread(mean: Mean, digits: int = 1, *, sign: bool = False, seeds: bool = True) -> Value:
    """Mean ± standard deviation (n)."""
    if not math.isfinite(mean.mean):
        return Value(UNKNOWN, {"": None})
    deviation = "" if math.isnan(mean.std) else f" ± {mean.std:.{digits}f}"
    text = f"{number(mean.mean, digits, sign=sign)}{deviation}" + (f" ({mean.n})" if seeds and mean.n else "")
    numbers = {"": mean.mean, "std": None if math.isnan(mean.std) else mean.std}
    return Value(text, numbers | ({"n": mean.n or None} if seeds else {}))


def probability(value: float | None) -> Value:
    """A p-value."""
    if value is None or not math.isfinite(value):
        return Value(UNKNOWN, {"": None})
    return Value(f"{value:.3f}" if value >= 0.001 else f"{value:.0e}", {"": value})


def percent(share: float) -> Value:
    """A share, which a CSV file holds as such."""
    if not math.isfinite(share):
        return Value(UNKNOWN, {"": None})
    return Value(f"{100 * share:z.0f} %".replace("-", _MINUS), {"": share})


def interval(low: float, high: float, digits: int = 1) -> Value:
    """Both ends of an interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return Value(UNKNOWN, {"low": None, "high": None})
    return Value(
        f"{number(low, digits, sign=True)} to {number(high, digits, sign=True)}", {"low": low, "high": high}
    )


def mean_of(document: Mapping[str, Any]) -> Mean:
    """A mean from its plain values."""
    mean, std = (math.nan if document[name] is None else float(document[name]) for name in ("mean", "std"))
    return Mean(mean, std, document["n"] or 0)


def yes_or_no(value: bool | None) -> str:
    """A word; a dash for what is not known."""
    return {True: "yes", False: "no", None: UNKNOWN}[value]
