"""Writes the tables of docs/experiments.md from the cells, so that the page says what was measured.

python -m experiments.tables
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from experiments import (
    convert,
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
}
"""Name of a part of the page -> what returns its table."""


def written(page: str) -> str:
    """Returns the page with every table made anew."""
    for name, made in TABLES.items():
        page = filled(page, name, f"\n{made()}\n")
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
