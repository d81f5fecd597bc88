"""Inputs from new texts: plain texts at nested keys, and rows whose key is missing."""

import pytest

from spoton.errors import DataError
from spoton.tasks.fill import fill
from spoton.tasks.template import nested_template, single_path


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (nested_template(["meta", "title"]), ("meta", "title")),
        ("{{ meta.title.strip() }} {{ row.meta['title'] }}", ("meta", "title")),
        ("{{ row['star rating'][:9] }}", ("star rating",)),
        ("{{ text }}", None),
        ("{{ text.strip() }} {{ text[0] }}", None),
        ("{{ meta.title }} {{ meta.body }}", None),
        ("{{ meta.title }} {{ text }}", None),
        ("{% for part in row %}{{ part.name }}{% endfor %}", None),
    ],
)
def test_the_path_that_a_template_reads(template: str, path: tuple[str, ...] | None) -> None:
    assert single_path(template) == path


def test_a_text_is_read_at_the_nested_key() -> None:
    assert fill(nested_template(["meta", "title"]), ["a joy"]) == ["a joy\nAnswer:"]


def test_a_text_in_place_of_an_object_is_refused() -> None:
    for template in (nested_template(["meta", "title"]), "{{ meta.title }}"):
        with pytest.raises(DataError, match="not text"):
            fill(template, [{"meta": "a joy"}])
