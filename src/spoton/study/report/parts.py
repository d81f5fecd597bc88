"""What a report is made of, whatever it is written as: sections of paragraphs, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from spoton.study.results.scores import Mean

UNKNOWN = "\N{EN DASH}"
"""What stands for a number that is not known."""

DROPPED = "\N{DAGGER}"
"""What marks a score of a cell that successive halving ended early."""


@dataclass(frozen=True)
class Table:
    """A table of finished text, the same in every format.

    Attributes:
        columns: Headings.
        rows: Cells.
        numbers: Headings of the columns to align to the right.
        folded: What a long table is called that a reader opens; None: it stands open.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()
    folded: str | None = None


@dataclass(frozen=True)
class Figure:
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
        blocks: Paragraphs, tables, figures.
        level: 2, or 3 for a part of the section before.
    """

    title: str
    blocks: Sequence[Block]
    level: int = 2

    @property
    def anchor(self) -> str:
        """A name for links."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower()).strip("-")


Block: TypeAlias = str | Table | Figure


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A number as text; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    told = f"{value:{'+' if sign else ''}.{digits}f}"
    return told.replace("-", "\N{MINUS SIGN}")


def spread(mean: Mean, *, sign: bool = False, seeds: bool = True) -> str:
    """Mean ± standard deviation (n)."""
    if not math.isfinite(mean.mean):
        return UNKNOWN
    deviation = "" if math.isnan(mean.std) else f" ± {mean.std:.1f}"
    return number(mean.mean, sign=sign) + deviation + (f" ({mean.n})" if seeds and mean.n else "")


def probability(value: float | None) -> str:
    """A p-value as text."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def percent(value: float) -> str:
    """A share as text."""
    return f"{100 * value:.0f} %".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else UNKNOWN
