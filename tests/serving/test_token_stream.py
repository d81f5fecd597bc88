"""The text of a continuation as it grows: nothing of a stop string is sent, however its characters are split."""

from __future__ import annotations

import pytest

from spoton.serving.token_stream import GrowingText
from tests.tiny import tokenizer


@pytest.mark.parametrize(
    ("text", "stops", "sent"),
    [
        ("bc\n大 more", ["\n大"], "bc"),  # the tokenizer splits 大 over three tokens
        ("bc\n水 more", ["\n大"], "bc\n水 more"),
        ("x »END", ["»END"], "x "),
        ("ab!x", ["b!", "ab!"], ""),  # what waits for one stop string does not hide a longer one
        ("a大", [], "a大"),
    ],
)
def test_nothing_of_a_stop_string_is_sent(text: str, stops: list[str], sent: str) -> None:
    words = tokenizer()
    growing = GrowingText(words, words.encode("a"), stops)
    parts = []
    for token in words.encode(text):
        parts.append(growing.push(token))
        if growing.stopped:
            break
    parts.append(growing.rest())
    assert "".join(parts) == growing.text == sent
    assert growing.stopped == (sent != text)
