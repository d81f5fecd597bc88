"""The server's counters, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from spoton.serving.batcher import Batcher
from spoton.serving.passes import Passes

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """Counters of one server, in a separate registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "spoton_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self.latency = Histogram(
            "spoton_request_seconds", "From the first byte of a request to the last of its answer.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.inputs = Counter(
            "spoton_prompt_inputs", "Inputs read behind each prompt.", ["prompt"], registry=registry
        )
        self.pass_inputs = Histogram(
            "spoton_pass_inputs", "Inputs of one pass.", buckets=_POWERS[:8], registry=registry
        )
        self.pass_tokens = Histogram(
            "spoton_pass_tokens", "Tokens of one pass.", buckets=_POWERS, registry=registry
        )
        self.pass_seconds = Histogram(
            "spoton_pass_seconds", "Seconds of one pass.", buckets=_SECONDS, registry=registry
        )

    def on_pass(self, inputs: int, tokens: int, seconds: float) -> None:
        """Counts one pass through the model."""
        self.pass_inputs.observe(inputs)
        self.pass_tokens.observe(tokens)
        self.pass_seconds.observe(seconds)

    def watch(self, batcher: Batcher, passes: Passes, prompts: Callable[[], int]) -> None:
        """Adds gauges that are read on request.

        Args:
            batcher: Gives the queue.
            passes: Gives the cache.
            prompts: Returns how many prompts are served.
        """
        cache = passes.cache
        for name, meaning, value in (
            ("spoton_queue_inputs", "Inputs that wait.", lambda: batcher.waiting),
            ("spoton_cache_bytes", "Keys and values of prompts that are kept.", lambda: cache.bytes),
            ("spoton_cache_prompts", "Prompts whose keys and values are kept.", lambda: len(cache)),
            ("spoton_cache_hits", "Prompts found in the cache.", lambda: cache.hits),
            ("spoton_cache_misses", "Prompts that had to be computed.", lambda: cache.misses),
            ("spoton_cache_evictions", "Prompts that had to leave the cache.", lambda: cache.evictions),
            ("spoton_prompts", "Prompts that are served.", prompts),
        ):
            Gauge(name, meaning, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
