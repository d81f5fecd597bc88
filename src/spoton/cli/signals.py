"""Signals that end a process, as Ctrl-C ends it: the run saves what it has, and the exit code names the signal.

A terminal that closes sends SIGHUP, a batch system or `kill` sends SIGTERM; both leave some seconds. What a caller has
told this process to ignore (`nohup`) stays ignored. The package itself installs nothing: only the command does.
"""

from __future__ import annotations

import signal
from types import FrameType

_received: int | None = None


def interrupt_on_signals() -> None:
    """Makes SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as SIGINT does."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def ignore_interrupts() -> None:
    """Lets a process end that has nothing left to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def exit_code() -> int:
    """128 and the number of the signal that came, as shells have it; that of Ctrl-C if it was none of ours."""
    return 128 + (_received or signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None:  # a second one shall not disturb what the first has begun to save
        _received = number
        raise KeyboardInterrupt
