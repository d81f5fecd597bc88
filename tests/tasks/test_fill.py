"""Inputs of new texts: what a prompt reads is what it was tuned on."""

from __future__ import annotations

import pytest

from spoton.errors import DataError
from spoton.tasks.fill import fill
from spoton.tasks.template import nested_template


def test_a_text_is_the_key_of_a_nested_column() -> None:
    template = nested_template(["doc", "body"], "Answer:")
    expected = ["A film.\nAnswer:"]
    assert fill(template, ["A film."]) == fill(template, [{"doc": {"body": "A film."}}]) == expected
    assert fill("{{ doc['body'] }}\nAnswer:", ["A film."]) == expected


@pytest.mark.parametrize("template", ["{{ doc.title }}", "{{ row['doc'].title }}"])
def test_what_is_no_text_is_not_printed(template: str) -> None:
    """`title` of a text is Python's own method."""
    assert fill(template, [{"doc": {"title": "A film."}}]) == ["A film."]
    with pytest.raises(DataError, match=r"Row 1.*prints a function"):
        fill(template, ["A film."])


def test_a_template_that_reads_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"reads nothing of a text.*tune the prompt again"):
        fill("mixture of a, b", ["A film.", "A book."])
