"""Cells as text: empty ones, numbers, bytes, nested columns and conversations."""

from typing import Any

import pytest

from spoton.errors import DataError
from spoton.tasks.cells import lookup, plain_rows, require_text, target_text


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (1.0, "1"),
        (1, "1"),
        (0.5, "0.5"),
        (True, "true"),
        (None, ""),
        (["one"], "one"),
        ([], ""),
        (" a ", "a"),
    ],
)
def test_targets_as_text(cell: Any, text: str) -> None:
    assert target_text(cell, "label") == text


def test_what_is_refused_is_named() -> None:
    with pytest.raises(DataError, match=r"'tags' has several targets.*Multi-label"):
        target_text(["a", "b"], "tags")
    with pytest.raises(DataError, match=r"holds objects with 'id', 'name'.*--target label.id"):
        target_text({"id": 1, "name": "x"}, "label")
    with pytest.raises(DataError, match="'picture' holds bytes"):
        require_text(b"\xff\xd8", "picture")
    with pytest.raises(DataError, match="'parts' holds lists"):
        require_text(["a"], "parts")


def test_nan_is_empty_and_bytes_are_text_where_they_can_be() -> None:
    (row,) = plain_rows([{"a": float("nan"), "b": "né".encode(), "c": b"\xff"}])
    assert row == {"a": None, "b": "né", "c": b"\xff"}


def test_nested_columns() -> None:
    row = {"a": {"b": {"c": 1}}, "a.b": 2}
    assert (lookup(row, "a.b.c"), lookup(row, "a.b"), lookup(row, "a.x"), lookup(row, "z.y")) == (
        1,
        2,
        None,
        None,
    )


def test_a_conversation_is_a_prompt_and_a_completion() -> None:
    user, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert plain_rows([{"messages": [user, answer], "id": 1}]) == [
        {"id": 1, "prompt": "Why?", "completion": "Because."}
    ]
    assert plain_rows([{"prompt": [system, user], "completion": [answer]}]) == [
        {"prompt": "system: Be brief.\nuser: Why?", "completion": "Because."}
    ]
    assert plain_rows([{"messages": [user]}]) == [{"prompt": "Why?", "completion": None}]
    assert plain_rows(
        [{"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}]
    ) == [{"prompt": "Why?", "completion": "So."}]
    with pytest.raises(DataError, match="message of the user holds"):
        plain_rows([{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}])
