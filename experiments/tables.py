"""Writes the tables of docs/experiments.md from the cells, and the table of answers from the page's own sections.

python -m experiments.tables
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from experiments import (
    convert,
    many_classes,
    ranking,
    recipe_sweep,
    related_source,
    small_tasks,
    starter_library,
    transfer_methods,
    wording,
)
from experiments.pages import filled
from spoton import starter_library as library

PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"
TABLES: Mapping[str, Callable[[], str]] = {
    "starter-library": partial(starter_library.table, starter_library.RECORDS),
    "families": lambda: starter_library.families(library()),
    "sweep": partial(recipe_sweep.tables, recipe_sweep.CELLS),
    "wording": partial(wording.table, wording.CELLS, tuned=False),
    "wording-tuned": partial(wording.table, wording.CELLS, tuned=True),
    "ranking": partial(ranking.table, ranking.RESULTS),
    "related-source": partial(related_source.table, related_source.CELLS),
    "convert": partial(convert.table, convert.CELLS),
    "methods": partial(transfer_methods.table, transfer_methods.CELLS),
    "small-tasks": partial(small_tasks.table, small_tasks.CELLS),
    "many-classes": partial(many_classes.table, many_classes.CELLS),
}
"""Name of a part of the page -> what returns its table."""
ANSWERS = "answers"
"""Name of the part that has the answer of every section."""
_SECTION = re.compile(r"^#{2,3} (?P<title>.+)\n\n(?:\*\*(?P<answer>[^*]+)\*\*)?", flags=re.MULTILINE)


def written(page: str) -> str:
    """Returns the page with every table made anew."""
    for name, made in TABLES.items():
        page = filled(page, name, f"\n{made()}\n")
    return filled(page, ANSWERS, f"\n{answers(page)}\n")


def answers(page: str) -> str:
    """Returns a table of the sections that begin with their answer: a bold sentence, which stands on the page once."""
    rows = [
        f"| [{section['title']}](#{anchor(section['title'])}) | {' '.join(section['answer'].split())} |"
        for section in _SECTION.finditer(page)
        if section["answer"]
    ]
    return "\n".join(["| experiment | answer |", "|---|---|", *rows])


def unanswered(page: str) -> list[str]:
    """Returns the titles of the sections that do not begin with an answer."""
    return [section["title"] for section in _SECTION.finditer(page) if not section["answer"]]


def anchor(title: str) -> str:
    """Returns what a link to a section ends in, as GitHub and the site make it from the title."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
