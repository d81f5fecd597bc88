"""Progress events of a long run: plain values. The watcher decides how to show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One moment of a long run.

    Attributes:
        phase: What is running, in words ("tuning", "zero-shot validation", ...).
        done: Units finished.
        total: Units in all.
        unit: What is counted: "step", "example", "cell", "figure".
        loss: Mean training loss of the last step, in nats per target token.
        metric: Name of the task's main metric.
        validation: Its latest value on the validation split, 0 to 100.
        best: Its best value so far.
        tokens_per_second: Text tokens trained on per second.
        seconds_left: Expected time to the end of this phase.
        passes: Number of passes that a step is split into to fit memory.
    """

    phase: str
    done: int
    total: int
    unit: str
    loss: float | None = None
    metric: str = ""
    validation: float | None = None
    best: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    passes: int = 1


OnEvent = Callable[[Progress], None]


def silent(event: Progress) -> None:
    """Ignores every event."""
