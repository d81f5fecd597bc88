"""Where the command line writes: results to stdout, everything else to stderr.

With `--json` stdout holds exactly one JSON document, and nothing else. This module formats and writes; it
knows no room and no result type.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from spoton.cli.terminal_text import SafeConsole, printable
from spoton.errors import SpotonError
from spoton.reading import reason

# Wide enough that no cell of our tables is cut in a file or a pipe, where there is no terminal to ask.
_WIDTH_WITHOUT_TERMINAL = 160


def stdout() -> Console:
    """The console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console of progress, notes and errors."""
    return _console(stderr=True)


def emit(document: object, text: RenderableType, *, as_json: bool) -> None:
    """Write a command's result to stdout.

    Args:
        document: What `--json` prints: dicts, lists, strings, numbers, None; paths are written as strings.
        text: What a person reads instead.
        as_json: Which of the two.

    Raises:
        SpotonError: Stdout cannot be written, for example on a full disk.
    """
    try:
        if as_json:
            sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
        else:
            stdout().print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever read has read enough, which is not an error
    except OSError as error:
        _abandon_stdout()
        raise SpotonError(
            f"Cannot write the result to stdout: {reason(error)}. Send it elsewhere."
        ) from error


def use_real_streams() -> None:
    """Makes stdout and stderr take any text, and stderr never fail: a run shall not end with the terminal it told."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr is not None:
        sys.stderr = _BestEffort(sys.stderr)


class _BestEffort:
    """A stream whose lost words are lost."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _abandon_stdout() -> None:
    """Sends what is left in the buffer of stdout nowhere; Python would fail on it again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def note(message: str) -> None:
    """Write one line to stderr: a choice made, a warning, a path written."""
    stderr().print(message, style="dim")


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what libraries print while they work to stderr, so stdout stays the result's."""
    with redirect_stdout(sys.stderr):
        yield


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> Table:
    """A plain table.

    Args:
        columns: The headings.
        rows: One sequence of cells per row; None is printed as `-`, floats with two decimals.
        numbers: Headings of the columns to align to the right.
    """
    result = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        result.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        result.add_row(*(_cell(value) for value in row))
    return result


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line."""
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in pairs:
        result.add_row(name, _cell(value))
    return result


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else printable(str(value))


def _console(*, stderr: bool) -> Console:
    console = SafeConsole(stderr=stderr, markup=False, emoji=False, highlight=False)  # data is not markup
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console
