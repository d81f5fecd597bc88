"""Signals that end a process like Ctrl-C: the run saves its result so far, and the exit code names the signal.

A terminal that closes sends SIGHUP; a batch system or `kill` sends SIGTERM. Both leave a few seconds. Signals that the
caller made this process ignore (`nohup`) stay ignored. Only the command installs handlers; importing spoton does not.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_AGAIN = 0.05
"""Seconds until a signal that came in the middle of an import is sent again."""

_received: int | None = None


def interrupt_on_signals() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, but in no import."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)


def ignore_interrupts() -> None:
    """Ignores Ctrl-C from now on: the process is ending and has nothing left to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def exit_code() -> int:
    """Returns 128 plus the number of the signal that was received, as in shells; by default that of Ctrl-C."""
    return 128 + (_received or signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _is_importing(frame):
        later = threading.Timer(_AGAIN, _send, [number])
        later.daemon = True
        later.start()
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    elif _received is None:  # a second signal must not disturb the saving that the first one started
        _received = number
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported, by anything that `main` of `start` calls.

    Compiled modules such as torch's end the whole process (SIGABRT) when an exception meets their start.
    """
    while frame is not None and frame.f_globals.get("__name__") != "spoton.cli.start":
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _send(number: int) -> None:
    """Sends a signal to the main thread, which it wakes from a system call."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # Windows
        signal.raise_signal(number)
