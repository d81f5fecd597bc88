"""Completions as in OpenAI's API: text, log probabilities, echo, and streamed chunks.

Virtual tokens have no id. They never appear in an echo, in log probabilities or in the usage.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spoton.models.token_scores import TokenScores
from spoton.serving.api_types import CompletionRequest
from spoton.serving.errors import RequestError, failed, too_late
from spoton.serving.jobs import Sampling, ServingJob, TextJob
from spoton.serving.service import Service
from spoton.serving.token_stream import GrowingText, TextOffsets, TokenStream

_log = logging.getLogger(__name__)


@dataclass
class _Logprobs:
    """The lists of OpenAI's `logprobs`."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def since(self, start: int) -> dict[str, Any]:
        """Returns the entries from `start` on."""
        return {name: values[start:] for name, values in vars(self).items()}


@dataclass(frozen=True)
class _Given:
    """One text of a request: its tokens, with those that the model expects around it, and the text of its echo."""

    tokens: list[int]
    shown: str


class _Choice:
    """One text of a request: its echo and its continuation."""

    def __init__(self, service: Service, request: CompletionRequest, index: int, given: _Given) -> None:
        self._service, self._request, self.index = service, request, index
        self._shown, self.text = given.shown if request.echo else "", given.tokens
        tokenizer = service.model.tokenizer
        self._growing = GrowingText(tokenizer, given.tokens, request.stops)
        self._offsets = TextOffsets(tokenizer, [] if request.echo else given.tokens)
        self._special = set(tokenizer.all_special_ids)
        self.scores: TextJob | None = None
        self.stream: TokenStream | None = None
        self.logprobs = _Logprobs()
        self.generated = 0

    def token_text(self, token: int) -> str:
        """Returns a token as text, or its id where it is only part of a character."""
        text = str(self._service.model.tokenizer.decode([token]))
        return f"token_id:{token}" if "\N{REPLACEMENT CHARACTER}" in text else text

    async def echo(self) -> str:
        """Returns the text itself if it is requested, and notes its log probabilities if they are."""
        if self.scores is not None:
            async with asyncio.timeout(max(0.0, self.scores.deadline - time.monotonic())):
                found = await asyncio.wrap_future(self.scores.done)
            self._note_echo(found)
        return self._shown

    def _note_echo(self, found: TokenScores) -> None:
        self._note(self.text[0], None, None)  # no token with an id precedes the first one
        likelihoods = found.log_likelihoods.tolist()
        for token, likelihood, best, values in zip(
            self.text[1:], likelihoods, found.top_tokens.tolist(), found.top.tolist(), strict=True
        ):
            self._note(token, likelihood, dict(zip(map(self.token_text, best), values, strict=True)))
        # The text may be longer than that of its tokens, where the tokenizer leaves out spaces, for example.
        self._offsets = TextOffsets(self._service.model.tokenizer, self.text, len(self._shown))

    def _note(self, token: int, likelihood: float | None, top: dict[str, float] | None) -> None:
        text = self.token_text(token)
        logprobs = self.logprobs
        logprobs.tokens.append(text)
        logprobs.token_logprobs.append(likelihood)
        logprobs.top_logprobs.append(top)
        logprobs.text_offset.append(
            self._offsets.length if self._is_hidden(token) else self._offsets.push(token)
        )

    def _is_hidden(self, token: int) -> bool:
        """Returns whether the next token is one for the model that the answer's text leaves out, such as BOS."""
        if token not in self._special:
            return False
        text = str(self._service.model.tokenizer.decode([token]))
        return not self._shown.startswith(text, self._offsets.length)

    async def grow(self) -> AsyncGenerator[str, None]:
        """Yields new text as it is generated, without any part of a stop string."""
        if self.stream is None:
            return
        async with contextlib.aclosing(self.stream.__aiter__()) as chosen_tokens:
            async for chosen in chosen_tokens:
                self.generated += 1
                shown = self._growing.push(chosen.token)
                if self._request.logprobs is not None:
                    top = {self.token_text(token): value for token, value in chosen.top}
                    self._note(chosen.token, chosen.log_likelihood, top)
                yield shown
                if self._growing.stopped:
                    return
        yield self._growing.rest()

    @property
    def finish_reason(self) -> str:
        """`stop` or `length`."""
        if self.stream is None:
            return "length"
        return "stop" if self._growing.stopped else self.stream.reason or "length"


class Completion:
    """One request. Made by `begin`; then call either `whole` or `chunks`, once.

    Args:
        service: Runs the request.
        request: The request.
        choices: Its texts, already queued.
    """

    def __init__(self, service: Service, request: CompletionRequest, choices: Sequence[_Choice]) -> None:
        self._service, self._request, self._choices = service, request, choices
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }

    async def whole(self) -> dict[str, Any]:
        """Returns the answer as one document.

        Raises:
            RequestError: It took too long.
        """
        try:
            choices = await asyncio.gather(*map(self._finished, self._choices))
        except TimeoutError as error:
            raise too_late(self._service.limits.seconds) from error
        finally:
            self.cancel()
        return self._head | {"choices": choices, "usage": self._usage()}

    async def _finished(self, choice: _Choice) -> dict[str, Any]:
        text = await choice.echo()
        async with contextlib.aclosing(choice.grow()) as parts:
            async for part in parts:
                text += part
        return self._choice(choice, text, 0, choice.finish_reason)

    def _choice(self, choice: _Choice, text: str, start: int, reason: str | None) -> dict[str, Any]:
        logprobs = None if self._request.logprobs is None else choice.logprobs.since(start)
        return {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _usage(self) -> dict[str, int]:
        read = sum(len(choice.text) for choice in self._choices)
        written = sum(choice.generated for choice in self._choices)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    async def chunks(self) -> AsyncGenerator[str, None]:
        """Yields the answer as server-sent events; an error in the middle is also an event."""
        ready: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._send(choice, ready)) for choice in self._choices]
        asks_usage = self._request.stream_options is not None and self._request.stream_options.include_usage
        more = {"usage": None} if asks_usage else {}
        try:
            left = len(tasks)
            while left:
                item = await ready.get()
                if item is None:
                    left -= 1
                elif isinstance(item, Exception):
                    yield _event(_as_request_error(item, self._service.limits.seconds).to_json())
                    return
                else:
                    yield _event(self._head | {"choices": [item]} | more)
            if asks_usage:
                yield _event(self._head | {"choices": [], "usage": self._usage()})
            yield "data: [DONE]\n\n"
        finally:
            for task in tasks:
                task.cancel()
            self.cancel()

    async def _send(self, choice: _Choice, ready: asyncio.Queue[dict[str, Any] | Exception | None]) -> None:
        try:
            sent = 0
            text = await choice.echo()
            if text:
                ready.put_nowait(self._choice(choice, text, sent, None))
                sent = len(choice.logprobs.tokens)
            async with contextlib.aclosing(choice.grow()) as parts:
                async for part in parts:
                    if part:
                        ready.put_nowait(self._choice(choice, part, sent, None))
                        sent = len(choice.logprobs.tokens)
            ready.put_nowait(self._choice(choice, "", sent, choice.finish_reason))
            ready.put_nowait(None)
        except Exception as error:  # the reader of the queue would otherwise wait forever
            ready.put_nowait(error)

    def cancel(self) -> None:
        """Cancels the request: its client has gone."""
        for choice in self._choices:
            if choice.stream is not None:
                choice.stream.job.cancelled = True
            if choice.scores is not None:
                choice.scores.done.cancel()


async def begin(service: Service, request: CompletionRequest) -> Completion:
    """Checks a request and queues its texts.

    Raises:
        RequestError: The prompt is not served, a text is too long, or the model cannot do what is requested.
    """
    key, value = await _prompt(service, request.model)
    texts = await asyncio.to_thread(_texts, service, request)
    if len(texts) > service.limits.inputs:
        raise RequestError(
            413, f"The request has {len(texts)} texts, at most {service.limits.inputs} are accepted. Split it.",
            "request_too_large", "prompt",
        )  # fmt: skip
    for text in texts:
        _require_fit(service, request, text.tokens, len(value))
    service.require_room(sum(len(text.tokens) + request.max_tokens for text in texts))
    deadline = time.monotonic() + service.limits.seconds
    choices = [_Choice(service, request, index, text) for index, text in enumerate(texts)]
    jobs: list[ServingJob] = []
    for choice in choices:
        if request.max_tokens:
            seed = None if request.seed is None else request.seed + choice.index
            sampling = Sampling(request.temperature, request.top_p, seed, request.logprobs or 0)
            choice.stream = TokenStream(key, value, choice.text, deadline, request.max_tokens, sampling)
            jobs.append(choice.stream.job)
        if request.echo and request.logprobs is not None:
            choice.scores = TextJob(
                key=key, value=value, text=choice.text, deadline=deadline, top=request.logprobs
            )
            jobs.append(choice.scores)
    _require_able(service, request, jobs)
    service.batcher.submit(jobs)
    if request.model in service.roster.served:
        service.metrics.inputs.labels(request.model).inc(len(texts))
    return Completion(service, request, choices)


async def _prompt(service: Service, name: str) -> tuple[str, Tensor]:
    """Returns a prompt's content hash and its value, which has no tokens for the model itself."""
    if name == service.base:
        return "", torch.zeros(0, service.model.dim)
    prompt = await service.prompt(name)
    if prompt.card.members:
        raise RequestError(
            400, f"{name} is an ensemble, which classifies and does not continue texts. Ask one of its prompts, or "
            "/v1/classify.", "unsupported", "model",
        )  # fmt: skip
    return prompt.content, prompt.value


def _texts(service: Service, request: CompletionRequest) -> list[_Given]:
    """Returns the texts of a request."""
    given = request.prompt
    several: Sequence[str | list[int]]
    if isinstance(given, str):
        several = [given]
    elif isinstance(given[0], int):
        several = [[token for token in given if isinstance(token, int)]]
    else:
        several = [text for text in given if not isinstance(text, int)]
    vocabulary = service.model.embeddings.shape[0]
    found = []
    for text in several:
        shown = text if isinstance(text, str) else ""
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RequestError(
                    400, "A text holds half of a character. Repair it.", "invalid_text", "prompt"
                ) from error
            with service.tokenizer_lock:
                text = service.model.encode_input(text)
        if not text or max(text) >= vocabulary:
            raise RequestError(
                400,
                f"A text is empty or holds a token id that is not below {vocabulary}, the model's vocabulary.",
                "invalid_tokens",
                "prompt",
            )
        found.append(_Given(text, shown or str(service.model.tokenizer.decode(text))))
    return found


def _require_fit(service: Service, request: CompletionRequest, text: Sequence[int], length: int) -> None:
    """Refuses a text that does not fit into the model's positions; a decoder behind an encoder has its own."""
    room, read, new = service.model.max_length, length + len(text), request.max_tokens
    apart = service.model.is_encoder_decoder
    wanted = max(read, new + 1) if apart else read + new  # the decoder reads its start token first
    if room is not None and wanted > room:
        where = f"at most {room} tokens, and writes as many" if apart else f"at most {room} tokens"
        raise RequestError(
            400,
            f"The model reads {where}, but {length} of the prompt and {len(text)} of the text are {read}, and "
            f"{new} new ones are asked for. Shorten the text, or ask for fewer.",
            "context_length_exceeded",
            "prompt",
        )


def _require_able(service: Service, request: CompletionRequest, jobs: Sequence[ServingJob]) -> None:
    """Refuses requests that need single tokens from an engine that only continues greedily."""
    plain = request.temperature == 0 and request.logprobs is None
    if not plain and not all(service.passes.reads_by_token(job, request.max_tokens) for job in jobs):
        raise RequestError(
            400,
            f"{service.base} is continued greedily only, without log probabilities. Ask with temperature 0 and "
            "without logprobs; /v1/classify gives probabilities of labels.",
            "unsupported",
            "temperature" if request.temperature else "logprobs",
        )


def _as_request_error(error: Exception, seconds: float) -> RequestError:
    """Returns the error that a client receives in the middle of a stream."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, TimeoutError):
        return too_late(seconds)
    _log.error("A stream failed.", exc_info=error)
    return failed()


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"
