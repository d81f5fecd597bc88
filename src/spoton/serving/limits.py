"""Limits beyond which a server refuses requests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on one request, on the queue, and on memory."""

    body_bytes: int = 2**20
    """Largest body of a request; 413 beyond it."""
    body_seconds: float = 10.0
    """How long a client may take to send its body; 408 beyond it."""
    inputs: int = 256
    """Most inputs of one request; 413 beyond it."""
    tokens: int = 32_768
    """Most tokens of one request, including those to be generated; 413 beyond it."""
    queue: int = 1024
    """Most inputs that wait; 429 with Retry-After beyond it."""
    seconds: float = 30.0
    """How long a request may take; 504 beyond it."""
    template_seconds: float = 1.0
    """How long a prompt's template may take for the rows of one request."""
    template_bytes: int = 2**30
    """Address space of the process that fills templates."""
    cache_bytes: int = 2**30
    """Memory for keys and values of prompts."""
    pass_tokens: int = 2048
    """Tokens of one pass through the model; a longer input runs in a separate pass."""
    wait_seconds: float = 0.002
    """How long the first input of an idle server waits for others. A pass of one short input takes some 25 ms."""
    read_seconds: float = 0.05
    """How long it waits for requests that are being read: template and tokens of each take about a millisecond."""
    generating: int = 32
    """Most continuations that grow at the same time."""
