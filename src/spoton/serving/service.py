"""The server without HTTP: classifies rows, and scores and continues texts, by the name of a prompt.

Answers equal those of `spoton.evaluation.predict`, whatever else runs in the same pass.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spoton.evaluation.encoding import Encoded
from spoton.evaluation.predict import answers_from_scores, encode_inputs
from spoton.evaluation.score import label_score_of
from spoton.models.frozen import FrozenModel
from spoton.prompts.library import PromptLibrary
from spoton.serving.batcher import Batcher
from spoton.serving.errors import RequestError, too_late
from spoton.serving.jobs import LabelJob, Sampling
from spoton.serving.limits import Limits
from spoton.serving.metrics import Metrics
from spoton.serving.passes import Passes
from spoton.serving.roster import Roster, ServedPrompt
from spoton.serving.template_process import TemplateProcess
from spoton.serving.token_stream import TokenStream
from spoton.tasks.fill import given_columns

_log = logging.getLogger(__name__)

# How often folders are checked while requests arrive.
_LOOK_SECONDS = 1.0
# How often libraries behind URLs are asked for changes: each time is a request to another host.
_FETCH_SECONDS = 30.0

InputRow = str | Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """The answer for one row.

    Attributes:
        prompt: Name of the prompt.
        answer: The most likely label, or the generated text.
        probabilities: Probability of every label; None where the text was generated.
        tokens: Number of tokens that the model read.
        cut: Number of tokens that were cut from the middle of a long input.
    """

    prompt: str
    answer: str
    probabilities: dict[str, float] | None
    tokens: int
    cut: int


@dataclass(frozen=True)
class _ReadRow:
    """A row as the model will read it, and how many of its tokens were cut."""

    prompt: ServedPrompt
    text: list[int]
    cut: int


class Service:
    """One model and the prompts of some libraries. Close it after use.

    Args:
        model: The frozen model.
        libraries: Libraries of prompts.
        limits: Bounds on requests.
    """

    def __init__(
        self, model: FrozenModel, libraries: Sequence[PromptLibrary], limits: Limits | None = None
    ) -> None:
        self.model, self.limits = model, limits or Limits()
        # Clients must not see the path of a folder.
        self.base = Path(model.name).name if "/" in model.name and Path(model.name).exists() else model.name
        self.roster = Roster(model, libraries, self.base)
        self.metrics = Metrics()
        self.passes = Passes(model, self.limits.cache_bytes)
        self.batcher = Batcher(self.passes, self.limits, self.metrics.on_pass)
        self.metrics.watch(self.batcher, self.passes, lambda: len(self.roster.served))
        self.started = time.time()
        self._templates = TemplateProcess(self.limits.template_seconds, self.limits.template_bytes)
        # Tokenizers of Hugging Face fail when two threads change their padding at once.
        self.tokenizer_lock = threading.Lock()
        self._closed = threading.Event()

    async def start(self) -> None:
        """Starts what the first request would otherwise wait for, and the watch over libraries behind URLs."""
        if self.roster.remote:
            # The end of the server does not wait for a host that does not answer.
            threading.Thread(target=self._fetch, name="spoton-libraries", daemon=True).start()
        await self._templates.fill("", [], {})

    async def close(self) -> None:
        """Finishes waiting jobs, and ends the threads and the process."""
        self._closed.set()
        await asyncio.to_thread(self.batcher.close)
        await self._templates.close()

    def _fetch(self) -> None:
        while not self._closed.wait(_FETCH_SECONDS):
            try:
                self.roster.fetch()
            except Exception:  # whatever it is, the next time may succeed
                _log.exception("Libraries could not be fetched.")

    async def prompt(self, name: str, field: str = "model") -> ServedPrompt:
        """Returns a prompt by name, even if it was added a moment ago.

        Args:
            name: Its name.
            field: The field of the request that names it, for the error.

        Raises:
            RequestError: It does not exist, or is not served.
        """
        await asyncio.to_thread(self.roster.refresh, older_than=_LOOK_SECONDS)
        if name not in self.roster.served:
            await asyncio.to_thread(self.roster.refresh)
        found = self.roster.served.get(name)
        if found is not None:
            return found
        reasons = [refused.reason for refused in self.roster.refused if refused.name == name]
        raise RequestError(
            404,
            f"The prompt {name!r} is not served: {reasons[0].rstrip('.')}."
            if reasons
            else f"There is no prompt {name!r}. GET /v1/models lists those that are served.",
            "model_not_found",
            field,
        )

    async def classify(
        self, names: Sequence[str], rows: Sequence[InputRow], *, max_tokens: int = 32
    ) -> list[Answer]:
        """Answers rows.

        Args:
            names: Name of the prompt of each row.
            rows: Texts, or mappings of columns.
            max_tokens: Most tokens of a generated answer, for prompts without labels.

        Raises:
            RequestError: A prompt is not served, or the request exceeds a limit.
            DataError: A row does not fit its prompt.
        """
        deadline = time.monotonic() + self.limits.seconds
        with self.batcher.expecting():
            asked = await self._read(names, rows, max_tokens)
            jobs = [_label_jobs(one, deadline) for one in asked]
            streams = [
                TokenStream(one.prompt.content, one.prompt.value, one.text, deadline, max_tokens, Sampling())
                if one.prompt.labels is None
                else None
                for one in asked
            ]
            self.batcher.submit([
                *(job for own in jobs for job in own), *(stream.job for stream in streams if stream)
            ])  # fmt: skip
        answers = (
            self._chosen(one, own) if stream is None else self._continued(one, stream)
            for one, own, stream in zip(asked, jobs, streams, strict=True)
        )
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return list(await asyncio.gather(*answers))
        except TimeoutError as error:
            raise too_late(self.limits.seconds) from error

    async def _read(self, names: Sequence[str], rows: Sequence[InputRow], max_tokens: int) -> list[_ReadRow]:
        """Returns the rows as the model will read them.

        Raises:
            RequestError: A prompt is not served, or the request has too many tokens.
            DataError: A row does not fit its prompt.
        """
        prompts = {name: await self.prompt(name, "prompt") for name in dict.fromkeys(names)}
        read: dict[int, _ReadRow] = {}
        for name, prompt in prompts.items():
            own = [row for row, wanted in enumerate(names) if wanted == name]
            found = await self._encode(prompt, [rows[row] for row in own], max_tokens)
            for row, text, cut in zip(own, found.inputs, found.cut, strict=True):
                read[row] = _ReadRow(prompt, text, cut)
            self.metrics.inputs.labels(name).inc(len(own))
        self.require_room(
            sum(len(one.text) + (0 if one.prompt.labels else max_tokens) for one in read.values())
        )
        return [read[row] for row in range(len(names))]

    async def _encode(self, prompt: ServedPrompt, rows: Sequence[InputRow], max_tokens: int) -> Encoded:
        """Returns the encoded inputs that the model will read."""
        card = prompt.card
        inputs = await self._templates.fill(card.template, rows, given_columns(card.source))

        def encoded() -> Encoded:
            with self.tokenizer_lock:
                return encode_inputs(self.model, prompt.prompt, inputs, max_tokens)

        return await asyncio.to_thread(encoded)

    async def _chosen(self, asked: _ReadRow, jobs: Sequence[LabelJob]) -> Answer:
        """Returns the most likely label of an input."""
        scores = torch.stack(await asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs)))
        prompt = asked.prompt
        if label_score_of(prompt.card) == "mean":
            scores = scores / torch.tensor([len(label) for label in prompt.labels or []])
        ((answer, chances),) = answers_from_scores(prompt.card, scores[:, None])
        return Answer(prompt.name, answer, chances, len(asked.text), asked.cut)

    async def _continued(self, asked: _ReadRow, stream: TokenStream) -> Answer:
        """Returns the greedy continuation of an input."""
        text = self.model.decode([chosen.token for chosen in await stream.all()])
        return Answer(asked.prompt.name, text, None, len(asked.text), asked.cut)

    def require_room(self, tokens: int) -> None:
        """Refuses a request with too many tokens.

        Raises:
            RequestError: It is too large.
        """
        if tokens > self.limits.tokens:
            raise RequestError(
                413, f"The request has {tokens} tokens, at most {self.limits.tokens} are accepted. Split it.",
                "request_too_large",
            )  # fmt: skip


def _label_jobs(asked: _ReadRow, deadline: float) -> list[LabelJob]:
    """Returns a job for each member of the prompt (ensembles have several); none if it generates text."""
    labels = asked.prompt.labels
    if labels is None:
        return []
    return [
        LabelJob(key=key, value=value, text=asked.text, deadline=deadline, labels=labels)
        for key, value in asked.prompt.members
    ]
