"""Where the command line writes: results to stdout, everything else to stderr.

With `--json` stdout holds exactly one JSON document, and nothing else. This module formats and writes; it
knows no other package and no type of results.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from spoton.cli.terminal_text import SafeConsole, printable
from spoton.errors import SpotonError
from spoton.reading import reason

# Wide enough that no cell of our tables is truncated in a file or a pipe, which has no terminal width.
_WIDTH_WITHOUT_TERMINAL = 160


def stdout() -> Console:
    """Returns the console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Returns the console for progress, notes and errors."""
    return _console(stderr=True)


def emit(document: object, text: RenderableType, *, as_json: bool) -> None:
    """Writes a command's result to stdout.

    Args:
        document: What `--json` prints: dicts, lists, strings, numbers, None; paths are written as strings.
        text: What is printed without `--json`.
        as_json: Whether to print the document.

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
        raise  # the reader of the pipe has closed it, which is not an error
    except OSError as error:
        _abandon_stdout()
        raise SpotonError(
            f"Cannot write the result to stdout: {reason(error)}. Send it elsewhere."
        ) from error


def use_real_streams() -> None:
    """Makes stdout and stderr accept any text, and stderr never fail: a run continues if its terminal closes.

    A stream that the caller has closed is an empty one, as a daemon or `>&-` may leave it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = _BestEffort(sys.stderr)


class _BestEffort:
    """A stream that ignores errors in writing."""

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
    """Discards what is left in the buffer of stdout; Python would fail on it again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def note(message: str) -> None:
    """Writes one line to stderr: a choice, a warning, or the path of a file that was written."""
    stderr().print(message, style="dim")


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Sends what libraries print to stderr, so that stdout has results only."""
    with redirect_stdout(sys.stderr):
        yield


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> Table:
    """Returns a plain table.

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
    """Returns a table of names and values, one pair per line."""
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
