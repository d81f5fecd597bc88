"""The queue in front of the model: inputs of all requests wait here and run together.

One thread runs the model. While a pass runs, the next one fills; an idle server waits a moment for more inputs, and a
little longer for requests that are already being read, since a pass of two inputs costs a quarter of a pass of thirty.
Between passes every continuation grows by a token, so that long texts and classification do not starve each other.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from spoton.serving.errors import draining, queue_full, too_late
from spoton.serving.generation import Generation
from spoton.serving.jobs import GenerateJob, LabelJob, ServingJob, TextJob
from spoton.serving.limits import Limits
from spoton.serving.passes import Passes

_log = logging.getLogger(__name__)

OnPass = Callable[[int, int, float], None]
"""Called after every pass with its inputs, tokens and seconds."""


class Batcher:
    """Collects jobs and runs them.

    Args:
        passes: Runs jobs on the model.
        limits: Bounds on queue, pass and waiting time.
        on_pass: Called after every pass.
    """

    def __init__(
        self, passes: Passes, limits: Limits, on_pass: OnPass = lambda inputs, tokens, seconds: None
    ) -> None:
        self._passes, self._limits, self._on_pass = passes, limits, on_pass
        self._waiting: deque[ServingJob] = deque()
        self._running: list[Generation] = []
        self._changed = threading.Condition()
        self._closed = False
        self._expected = 0
        self._tokens_per_second = 1000.0
        self._thread = threading.Thread(target=self._work, name="spoton-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Inputs in the queue."""
        return len(self._waiting)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announces a request until the block ends; it queues its jobs there, once they are read."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify()

    def submit(self, jobs: Sequence[ServingJob]) -> None:
        """Queues all of these jobs, or none.

        Raises:
            RequestError: The queue is full, or closed.
        """
        with self._changed:
            if self._closed:
                raise draining()
            if len(self._waiting) + len(jobs) > self._limits.queue:
                ahead = sum(job.tokens for job in self._waiting)
                raise queue_full(len(self._waiting), max(1, math.ceil(ahead / self._tokens_per_second)))
            self._waiting.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """Finishes the waiting jobs, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._running:
                    if self._closed:
                        return
                    self._changed.wait()
                if not self._running:
                    self._wait_for_company()
                jobs = self._next_jobs()
            if jobs:
                self._guarded(self._run, jobs)
            for generation in list(self._running):
                self._guarded(self._step, generation)

    def _wait_for_company(self) -> None:
        """Lets an idle server collect inputs that arrive together. The caller holds the lock."""
        start = time.monotonic()
        while sum(job.tokens for job in self._waiting) < self._limits.pass_tokens:
            most = self._limits.read_seconds if self._expected else self._limits.wait_seconds
            left = start + most - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _next_jobs(self) -> list[ServingJob]:
        """Returns the first job and later ones of its kind that fit into the pass. The caller holds the lock."""
        chosen: list[ServingJob] = []
        kept: list[ServingJob] = []
        tokens, now = 0, time.monotonic()
        growing = sum(len(generation.jobs) for generation in self._running)
        while self._waiting:
            job = self._waiting.popleft()
            full = isinstance(job, GenerateJob) and growing + len(chosen) >= self._limits.generating
            if full or (chosen and type(job) is not type(chosen[0])):
                kept.append(job)
            elif chosen and tokens + job.tokens > self._limits.pass_tokens:
                kept.append(job)
                break
            elif not job.claim():
                continue
            elif now > job.deadline:
                job.fail(too_late(self._limits.seconds))
            else:
                chosen.append(job)
                tokens += job.tokens
        self._waiting.extendleft(reversed(kept))
        return chosen

    def _run(self, jobs: Sequence[ServingJob]) -> None:
        """Runs one pass."""
        start = time.monotonic()
        if isinstance(jobs[0], GenerateJob):
            self._running += self._passes.generations([job for job in jobs if isinstance(job, GenerateJob)])
            return  # their first steps are the passes
        labels = [job for job in jobs if isinstance(job, LabelJob)]
        texts = [job for job in jobs if isinstance(job, TextJob)]
        if labels:
            for label_job, scores in zip(labels, self._passes.label_scores(labels), strict=True):
                label_job.done.set_result(scores)
        if texts:
            for text_job, found in zip(texts, self._passes.token_scores(texts), strict=True):
                text_job.done.set_result(found)
        seconds, tokens = time.monotonic() - start, sum(job.tokens for job in jobs)
        self._tokens_per_second += 0.2 * (tokens / max(seconds, 1e-6) - self._tokens_per_second)
        self._on_pass(len(jobs), tokens, seconds)

    def _step(self, generation: Generation) -> None:
        start, rows = time.monotonic(), len(generation.jobs)
        if not generation.step():
            self._running.remove(generation)
        self._on_pass(rows, rows, time.monotonic() - start)

    def _guarded(self, run: Callable[..., None], work: Sequence[ServingJob] | Generation) -> None:
        """Runs some work; an error reaches only the clients that wait for it."""
        try:
            run(work)
        except Exception as error:  # whatever it is, the thread must survive
            _log.exception("A pass through the model failed.")
            jobs = work if isinstance(work, Sequence) else work.jobs
            if not isinstance(work, Sequence) and work in self._running:
                self._running.remove(work)
            for job in jobs:
                job.fail(error)
