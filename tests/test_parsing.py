"""JSON and YAML of strangers: what is right comes back, what is hostile is refused. More in `tests/faults`."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spoton.parsing import MOST_LEVELS, MalformedError, parse_json, parse_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_was_written_is_read(value: object) -> None:
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value
    assert parse_yaml(yaml.safe_dump(value)) == yaml.safe_load(yaml.safe_dump(value))


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_the_depth_is_bounded_and_brackets_in_text_are_none(parse: object) -> None:
    assert callable(parse)
    assert parse("[" * MOST_LEVELS + "]" * MOST_LEVELS) is not None
    assert parse(json.dumps("[" * 1000)) == "[" * 1000
    with pytest.raises(MalformedError, match="levels deep"):
        parse("[" * (MOST_LEVELS + 2) + "]" * (MOST_LEVELS + 2))


def test_aliases_stand_for_what_is_behind_them() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    with pytest.raises(MalformedError, match="stands for more than"):
        parse_yaml("a0: &a0 [x]\n" + layers)
    with pytest.raises(MalformedError, match="contains itself"):
        parse_yaml("&a [*a]")


def test_an_empty_yaml_is_nothing() -> None:
    assert parse_yaml("") is None and parse_yaml("# only a comment\n") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\tb: 1", r"^line 2, column 1: found character that cannot start any token$"),
        ("a: [1,\nb: 2", r"^line 3, column 1: did not find expected ',' or '\]'$"),
        ("a: 1\0", r"^control characters are not allowed, at character 5$"),
        (
            "a: !!python/object:os.system x",
            r"^line 1, column 4: could not determine a constructor for the tag",
        ),
    ],
)
def test_a_yaml_that_cannot_be_read_is_told_by_its_line(text: str, told: str) -> None:
    with pytest.raises(MalformedError, match=told):
        parse_yaml(text)
