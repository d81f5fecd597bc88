"""Tokens on their way to the client, and the text of a continuation as it grows."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch

from spoton.serving.jobs import ChosenToken, Sampling
from spoton.serving.token_stream import GrowingText, TokenStream
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


def test_a_reader_is_cancelled_while_tokens_come() -> None:
    """Each time with a token at hand; a reader that goes on would wait forever."""

    async def read(turns: int) -> None:
        stream = TokenStream("", torch.zeros(0, 1), [5], math.inf, 10, Sampling())
        reader = asyncio.create_task(stream.all())
        for _ in range(turns):
            await asyncio.sleep(0)
        stream.job.on_token(ChosenToken(5, 0.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait({reader}, timeout=60)
        assert reader.cancelled() and stream.job.cancelled

    async def all_turns() -> None:
        await asyncio.gather(*map(read, range(1, 8)))

    asyncio.run(all_turns())
