"""Passes a continuation's tokens from the model's thread to the event loop, and turns them into text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from spoton.serving.jobs import ChosenToken, GenerateJob, Sampling

# How many preceding tokens decide how a continuation's first token is written (with or without a space).
_CONTEXT = 4
_HALF = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes in UTF-8, so at most as many tokens.
_LONGEST = 4


class TokenStream:
    """The tokens of one continuation as they are generated. Iterate it once, in the event loop that made it.

    Args:
        key: Identifies the prompt in the cache.
        value: `[P, D]` the prompt.
        text: Tokens of the input.
        deadline: Deadline by `time.monotonic`.
        max_tokens: Most tokens to generate.
        sampling: How tokens are chosen.

    Attributes:
        job: The job to submit to the batcher.
        reason: Why it ended, `stop` or `length`; None before that.
    """

    def __init__(
        self,
        key: str,
        value: Tensor,
        text: Sequence[int],
        deadline: float,
        max_tokens: int,
        sampling: Sampling,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ChosenToken | str | Exception] = asyncio.Queue()
        self.reason: str | None = None
        self.job = GenerateJob(
            key=key, value=value, text=text, deadline=deadline, max_tokens=max_tokens, sampling=sampling,
            on_token=self._put, on_end=self._put,
        )  # fmt: skip

    def _put(self, item: ChosenToken | str | Exception) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def __aiter__(self) -> AsyncGenerator[ChosenToken, None]:
        """Yields tokens.

        Raises:
            TimeoutError: The deadline has passed.
            Exception: What went wrong in the pass.
        """
        try:
            while self.reason is None:
                left = self.job.deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                # Others run between two tokens, even if tokens come faster than they are read. `asyncio.wait_for`
                # would lose a cancellation that comes together with a token (Python 3.11).
                await asyncio.sleep(0)
                async with asyncio.timeout(left):
                    item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, str):
                    self.reason = item
                else:
                    yield item
        finally:
            self.job.cancelled = True  # nobody reads the rest, so the model can stop

    async def all(self) -> list[ChosenToken]:
        """Returns all tokens."""
        return [chosen async for chosen in self]


class GrowingText:
    """The text of a continuation while it grows, up to the first stop string.

    Args:
        tokenizer: The model's tokenizer.
        before: Tokens of the input.
        stops: Strings that end the text; they are not part of it.

    Attributes:
        text: The text so far.
        stopped: Whether a stop string occurred.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int], stops: Sequence[str]
    ) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._tokens = list(before[-_CONTEXT:])
        self._start = len(self._decode())
        self._given = 0
        self.text, self.stopped = "", False

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def push(self, token: int) -> str:
        """Adds a token; returns the new text that is final."""
        self._tokens.append(token)
        whole = self._decode()[self._start :]
        ends = [at for at in map(whole.find, self._stops) if at >= 0]
        if ends:
            self.text, self.stopped = whole[: min(ends)], True
            return self.rest()
        self.text = whole
        # Half a character, or what may become a stop string, waits for the next token.
        settled = whole.rstrip(_HALF)
        safe = len(settled)
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(settled)), 0, -1):
                if settled.endswith(stop[:length]):
                    safe = min(safe, len(settled) - length)
                    break
        shown = whole[self._given : safe]
        self._given = max(self._given, safe)
        return shown

    def rest(self) -> str:
        """Returns, at the end, the text that was held back."""
        shown = self.text[self._given :]
        self._given = len(self.text)
        return shown


class TextOffsets:
    """Where each token begins in a text that grows, in characters.

    A token that is only part of a character begins where the character does.

    Args:
        tokenizer: The model's tokenizer.
        before: Tokens before these, which are known already.
        length: Characters of the text before these tokens.

    Attributes:
        length: Characters of the text so far.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int], length: int = 0) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(before[-_CONTEXT:])
        self._counted = len(self._tokens)
        self.length = length

    def push(self, token: int) -> int:
        """Adds a token; returns where it begins."""
        if _HALF not in self._decode([token]):
            self._count()  # a whole character ends one that was never completed
        start = self.length
        self._tokens.append(token)
        waiting = len(self._tokens) - self._counted
        if waiting == _LONGEST or not self._decode(self._tokens).endswith(_HALF):
            self._count()
        return start

    def _count(self) -> None:
        """Adds the text of the tokens that are not counted yet."""
        self.length += len(self._decode(self._tokens)) - len(self._decode(self._tokens[: self._counted]))
        self._tokens = self._tokens[-_CONTEXT:]
        self._counted = len(self._tokens)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens))
