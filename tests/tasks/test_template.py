"""Templates: what they can do with a row, and that they can do nothing else."""

import pytest

from spoton.errors import DataError
from spoton.tasks.template import column_template, compile_template, render


def fill(source: str, **row: object) -> str:
    return render(compile_template(source), row)


def test_columns_and_row() -> None:
    assert (
        fill("{{ a }} and {{ row['star rating'] }}\nAnswer:", a="x", **{"star rating": 5})
        == "x and 5\nAnswer:"
    )


def test_plain_unescapes_and_collapses() -> None:
    assert fill("{{ a | plain }}", a=" salt &amp;\n pepper\u00a0&lt;3 ") == "salt & pepper <3"


def test_markup_is_text() -> None:
    assert fill("{{ a }}", a="<b>{{ b }}</b>") == "<b>{{ b }}</b>"


@pytest.mark.parametrize("column", ["text", "star rating", "not", "row", "naïve", "it's", "a\\b", "1st"])
def test_the_default_template_reaches_any_column(column: str) -> None:
    assert fill(column_template(column), **{column: "cell"}) == "cell\nAnswer:"


def test_a_missing_column_is_named_with_those_there() -> None:
    with pytest.raises(DataError, match=r"'bdy' is undefined.*Columns: title, body"):
        fill("{{ title }} {{ bdy }}", title="a", body="b")


@pytest.mark.parametrize("source", ["{{ a", "{% if a %}", "{{ a | nofilter }}", "{% include 'x' %}"])
def test_what_is_no_template_is_refused(source: str) -> None:
    with pytest.raises(DataError):
        fill(source, a="x")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ row.__init__.__globals__ }}",
        "{{ items.append(1) }}",
        "{{ range(10**9) | list }}",
        "{{ a + 1 }}",
        "{{ 1 / 0 }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(DataError):
        fill(source, a="x", items=[1])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ tags }}", r"prints a list.*join\(', '\)"),
        ("{{ 'Tags: ' ~ tags }}", "prints a list"),
        ("{{ user }}", "prints an object; name one of its keys \\(name\\)"),
        ("{{ picture }}", "prints bytes"),
    ],
)
def test_what_is_no_text_is_not_written_as_python_writes_it(source: str, words: str) -> None:
    row = {"tags": ["a", "b"], "user": {"name": "x"}, "picture": b"\xff"}
    with pytest.raises(DataError, match=words):
        fill(source, **row)
    assert (
        fill("{{ tags | join(', ') }} {{ user.name }} {{ tags | length }} {{ 2.5 }}", **row) == "a, b x 2 2.5"
    )


def test_messages_end_sentences_once() -> None:
    with pytest.raises(DataError, match=r"No filter named 'wordwrap'\. Columns"):
        compile_template("{{ a | wordwrap }}")
    with pytest.raises(DataError, match=r"is unsafe\. Correct"):
        fill("{{ a.__class__ }}", a="x")
