"""Live progress on stderr: a bar on a terminal, a line for each change in a file or a pipe.

It shows the events of a run (`spoton.events.Progress`) and computes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from spoton.cli.output import quiet_stdout, stderr

if TYPE_CHECKING:
    from spoton.events import OnEvent, Progress

# Without a terminal: seconds after which a line is written even if nothing was evaluated.
_SILENCE = 15.0
# Runs that seem to take longer than this are announced, once the first step, which checks the engine, weighs little.
_LONG_MINUTES = 20
_SETTLED_STEP = 8


@contextmanager
def live_progress(runs: int = 0) -> Iterator[OnEvent]:
    """Shows events until the block ends; meanwhile, what libraries print goes to stderr.

    Args:
        runs: Number of runs, about equally long, whose steps the user left open; they are announced if they take long.
    """
    console = stderr()
    with quiet_stdout():
        if console.is_terminal:
            with Bars(
                TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
                TextColumn("{task.fields[news]}", markup=False),
                console=console, transient=True, redirect_stdout=False,
            ) as bars:  # fmt: skip
                yield _announced_if_long(_BarPerPhase(bars), console, runs)
        else:
            yield _announced_if_long(_LinePerNews(console), console, runs)


def _announced_if_long(on_event: OnEvent, console: Console, runs: int) -> OnEvent:
    """Returns a receiver that passes events on, and says once how to end sooner if the runs together take very long."""
    told = False

    def watch(event: Progress) -> None:
        nonlocal told
        on_event(event)
        settled = event.unit == "step" and _SETTLED_STEP <= event.done < event.total
        if told or not settled or event.seconds_left is None:
            return
        told = True
        minutes = runs * event.total * event.seconds_left / (event.total - event.done) / 60
        if minutes > _LONG_MINUTES:
            what = f"{runs} runs of up to {event.total} steps" if runs > 1 else f"{event.total} steps"
            console.print(
                f"{what} take about {minutes:.0f} minutes at this speed, evaluations apart, unless validation stops "
                f"improving sooner. `--minutes {_LONG_MINUTES // 2}` plans for that time.",
                style="dim",
            )

    return watch


class _BarPerPhase:
    """Shows the running phase as a bar, and finished phases as lines above it."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.bar: TaskID | None = None
        self.last: Progress | None = None

    def __call__(self, event: Progress) -> None:
        if self.bar is not None and self.last is not None and self.last.phase != event.phase:
            self.bars.remove_task(self.bar)
            self.bar = None
        if self.bar is None:
            self.bar = self.bars.add_task(event.phase, news="")
        self.bars.update(self.bar, total=event.total, completed=event.done, news=_news(event))
        if event.done == event.total:
            self.bars.console.print(f"{event.phase}  {_news(event)}")
            self.bars.remove_task(self.bar)
            self.bar = None
        self.last = event


class _LinePerNews:
    """Writes a line when a phase starts or ends, when there is a new validation score, and after a time without one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: tuple[str, float | None] | None = None
        self.written = 0.0

    def __call__(self, event: Progress) -> None:
        now = time.monotonic()
        news = (event.phase, event.validation)
        if news != self.last or event.done == event.total or now - self.written > _SILENCE:
            self.console.print(f"{event.phase}  {_news(event)}")
            self.last, self.written = news, now


def _news(event: Progress) -> str:
    parts = [f"{event.unit} {event.done}/{event.total}"]
    if event.loss is not None:
        parts.append(f"loss {event.loss:.3f}")
    if event.validation is not None:
        best = f" (best {event.best:.1f})" if event.best is not None else ""
        parts.append(f"validation {event.metric} {event.validation:.1f}{best}")
    if event.tokens_per_second is not None:
        parts.append(f"{event.tokens_per_second:,.0f} tokens/s")
    if event.passes > 1:
        parts.append(f"in {event.passes} passes, to fit into memory")
    if event.seconds_left is not None and math.isfinite(event.seconds_left) and event.done < event.total:
        parts.append(f"{timedelta(seconds=round(event.seconds_left))} left")
    return "  ".join(parts)
