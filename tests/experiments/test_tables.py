"""The tables of docs/experiments.md are those of the committed cells."""

from __future__ import annotations

import pytest

from experiments.pages import filled
from experiments.tables import PAGE, TABLES


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_table_of_the_cells(name: str) -> None:
    page = PAGE.read_text()
    assert filled(page, name, f"\n{TABLES[name]()}\n") == page, "run: python -m experiments.tables"
