"""Continuations of several inputs that grow together, one token per step.

This module chooses the next token. `completions.py` turns tokens into text and decides where a text stops.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from spoton.models.engine import Batch, Generator
from spoton.models.frozen import FrozenModel
from spoton.models.generation import Continuation
from spoton.models.packed_rows import PromptCache
from spoton.serving.jobs import ChosenToken, GenerateJob, Sampling

_COLDEST = 1e-5
"""Below it the most likely token has all of the probability, and a division by the temperature overflows."""


class Generation(Protocol):
    """Continuations that run at the same time."""

    def step(self) -> bool:
        """Generates one token per row; returns whether there is more to do."""

    @property
    def jobs(self) -> list[GenerateJob]:
        """The jobs that are not done."""


class StepwiseGeneration:
    """Generates one token per step for every row; finished rows leave.

    Args:
        model: The frozen model.
        known: Keys and values of the prompts.
        batch: The inputs.
        jobs: The job of each input.
    """

    def __init__(
        self, model: FrozenModel, known: PromptCache, batch: Batch, jobs: Sequence[GenerateJob]
    ) -> None:
        self._end = model.end_token
        self._text = Continuation(model, known, batch)
        self._inputs = batch.inputs
        self._rows = [_Row(job) for job in jobs]
        self._tokens: Tensor | None = None

    @property
    def jobs(self) -> list[GenerateJob]:
        """See `Generation`."""
        return [row.job for row in self._rows]

    @torch.no_grad()
    def step(self) -> bool:
        """See `Generation`."""
        if self._tokens is None:
            logits = self._text.read_texts(self._inputs)
        else:
            logits = self._text.read(self._tokens, torch.ones_like(self._tokens))
        likelihoods = torch.log_softmax(logits.float(), dim=-1)
        chosen = [row.choose(likelihoods[b]) for b, row in enumerate(self._rows)]
        going = [b for b, row in enumerate(self._rows) if row.goes_on(chosen[b], self._end)]
        if not going:
            self._rows = []
            return False
        if len(going) < len(self._rows):
            self._text.keep(going)
            self._rows = [self._rows[b] for b in going]
        self._tokens = torch.tensor([[chosen[b].token] for b in going], device=logits.device)
        return True


class WholeGeneration:
    """Continues greedily in a single step, for engines that do not return after a token.

    A row ends early once its client has left or its time is over.

    Args:
        generate: The engine's generation.
        batch: The inputs.
        jobs: The job of each input.
    """

    def __init__(self, generate: Generator, batch: Batch, jobs: Sequence[GenerateJob]) -> None:
        self._generate, self._batch, self.jobs = generate, batch, list(jobs)

    def step(self) -> bool:
        """See `Generation`."""
        longest = max(job.max_tokens for job in self.jobs)
        wanted = [partial(_wants_more, job) for job in self.jobs]
        for job, tokens in zip(self.jobs, self._generate(self._batch, longest, wanted), strict=True):
            if job.cancelled:
                continue
            if time.monotonic() > job.deadline:
                job.fail(TimeoutError())
                continue
            for token in tokens[: job.max_tokens]:
                job.on_token(ChosenToken(token, float("nan")))
            job.on_end("length" if len(tokens) >= job.max_tokens else "stop")
        self.jobs = []
        return False


def _wants_more(job: GenerateJob, count: int) -> bool:
    """Returns whether a client still waits for more than `count` tokens."""
    return not job.cancelled and time.monotonic() <= job.deadline and count < job.max_tokens


class _Row:
    """One continuation: its job, its random generator, and its length."""

    def __init__(self, job: GenerateJob) -> None:
        self.job, self._length = job, 0
        self._random = torch.Generator()
        if job.sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(job.sampling.seed)

    def choose(self, likelihoods: Tensor) -> ChosenToken:
        """Returns the next token, from log-likelihoods `[V]`."""
        sampling = self.job.sampling
        token = choose_token(likelihoods, sampling, self._random)
        top: tuple[tuple[int, float], ...] = ()
        if sampling.top:
            best = likelihoods.topk(sampling.top)
            top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return ChosenToken(token, float(likelihoods[token]), top)

    def goes_on(self, chosen: ChosenToken, end: int) -> bool:
        """Passes the token to its job; returns whether another one is wanted."""
        job = self.job
        if job.cancelled:
            return False
        if time.monotonic() > job.deadline:
            job.fail(TimeoutError())
            return False
        if chosen.token == end:
            job.on_end("stop")
            return False
        job.on_token(chosen)
        self._length += 1
        if self._length == job.max_tokens:
            job.on_end("length")
            return False
        return True


def choose_token(likelihoods: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Returns the most likely token, or one sampled from the nucleus (Holtzman et al. 2020, section 3.1).

    Args:
        likelihoods: `[V]` log-likelihoods.
        sampling: Temperature and nucleus.
        random: The random generator.
    """
    if sampling.temperature < _COLDEST:
        return int(likelihoods.argmax())
    chances = torch.softmax(likelihoods.cpu() / sampling.temperature, dim=-1)
    ordered, tokens = chances.sort(descending=True)
    # A token belongs to the nucleus if the tokens before it sum to less than top_p; the first always does.
    outside = ordered.cumsum(0) - ordered >= sampling.top_p
    outside[0] = False
    ordered = ordered.masked_fill(outside, 0)
    return int(tokens[torch.multinomial(ordered, 1, generator=random)])
