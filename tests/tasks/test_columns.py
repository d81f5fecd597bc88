"""Which column is what: by name, by a usual name in any case, by a guess that is told."""

from typing import Any

import pytest

from spoton.errors import DataError
from spoton.tasks.columns import Columns


def choose(rows: list[dict[str, Any]], **named: str | None) -> Columns:
    return Columns.choose(rows, **({"input": None, "target": None, "template": None} | named))


def test_usual_names_in_any_case() -> None:
    found = choose([{"ID": 1, "Text ": "a", "LABEL": "x"}])
    assert (found.input, found.target, found.notes) == ("Text ", "LABEL", ())


def test_unusual_names_are_guessed_and_told() -> None:
    rows = [{"nr": i, "what they wrote": f"words {i} " * 9, "team": "ab"[i % 2]} for i in range(12)]
    found = choose(rows)
    assert (found.input, found.target) == ("what they wrote", "team")
    assert any("'team'" in note for note in found.notes) and any("wrote" in note for note in found.notes)
    assert choose(rows, target="nr").input == "what they wrote"


def test_two_candidates_are_no_guess() -> None:
    rows = [{"x": "word " * 9, "team": "ab"[i % 2], "place": "cd"[i % 2]} for i in range(12)]
    with pytest.raises(DataError, match=r"none can be guessed.*'team', 'place'.*--target") as told:
        choose(rows)
    assert (told.value.option, told.value.columns) == ("target", ("x", "team", "place"))


def test_a_named_column_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"no column 'TEXT'.*Did you mean 'text'.*--input"):
        choose([{"text": "a", "label": "b"}], input="TEXT")


def test_a_key_of_a_nested_column() -> None:
    rows = [{"doc": {"body": "b"}, "label": {"name": "x"}}]
    found = choose(rows, input="doc.body", target="label.name")
    assert found.template.startswith("{{ row['doc']['body'] }}") and found.target == "label.name"


def test_a_first_line_that_is_a_row() -> None:
    rows = [
        {"The film was warm.": f"The book was new {i}.", "good": ["good", "bad"][i % 2]} for i in range(12)
    ]
    assert any("'good' is also a cell of that column" in note for note in choose(rows).notes)
    named = [{"what they wrote": f"words {i} " * 9, "team": "ab"[i % 2]} for i in range(12)]
    assert not any("is also a cell" in note for note in choose(named).notes)


def test_one_column_is_not_both_input_and_target() -> None:
    rows = [{"text": f"words {i}", "label": "ab"[i % 2]} for i in range(12)]
    for named in ({"target": "text"}, {"input": "label"}, {"input": "text", "target": "text"}):
        with pytest.raises(
            DataError, match=r"both the input and the target.*'text', 'label'.*--input"
        ) as told:
            choose(rows, **named)
        assert told.value.columns == ("text", "label")


def test_a_template_that_gives_the_answer_away_is_told() -> None:
    rows = [{"text": f"words {i}", "label": "ab"[i % 2]} for i in range(12)]
    for template in ("{{ text }} {{ label }}:", "{{ text }} {{ row['label'] }}"):
        assert any("the answer is in the input" in note for note in choose(rows, template=template).notes)
    assert choose(rows, template="{{ text }} Label:").notes == ()


def test_a_template_that_reads_no_column_is_refused() -> None:
    with pytest.raises(DataError, match=r"The template 'text' reads no column.*\{\{ column \}\}"):
        choose([{"text": "a", "label": "x"}], template="text")
