"""The tables of docs/experiments.md are those of the committed cells; the first one has its sections' answers."""

from __future__ import annotations

import pytest

from experiments.pages import filled
from experiments.tables import ANSWERS, PAGE, TABLES, answers, unanswered


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_table_of_the_cells(name: str) -> None:
    page = PAGE.read_text()
    assert filled(page, name, f"\n{TABLES[name]()}\n") == page, "run: python -m experiments.tables"


def test_the_page_begins_with_the_answers_of_its_sections() -> None:
    page = PAGE.read_text()
    assert filled(page, ANSWERS, f"\n{answers(page)}\n") == page, "run: python -m experiments.tables"
    assert set(unanswered(page)) <= {
        "Not measured yet",
    }


def test_an_answer_is_the_bold_sentence_that_a_section_begins_with() -> None:
    page = (
        "# Page\n\n**All.** Text.\n\n## Is it so?\n\n**Yes: +4.1\npoints.** More.\n\n"
        "## Cells, and more\n\nNo **answer**.\n"
    )
    assert answers(page).splitlines()[2:] == ["| [Is it so?](#is-it-so) | Yes: +4.1 points. |"]
    assert unanswered(page) == ["Cells, and more"]
