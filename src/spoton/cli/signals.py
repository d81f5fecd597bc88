"""Signals that end a process like Ctrl-C: the run saves its result so far, and the exit code names the signal.

A terminal that closes sends SIGHUP; a batch system or `kill` sends SIGTERM. Both leave a few seconds. Signals that the
caller made this process ignore (`nohup`) stay ignored. Only the command installs handlers; importing spoton does not.
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
    """Ignores Ctrl-C from now on: the process is ending and has nothing left to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def exit_code() -> int:
    """Returns 128 plus the number of the signal that was received, as in shells; by default that of Ctrl-C."""
    return 128 + (_received or signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None:  # a second signal must not disturb the saving that the first one started
        _received = number
        raise KeyboardInterrupt
