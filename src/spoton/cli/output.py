"""Where the command line writes: results to stdout, everything else to stderr.

With `--json` stdout holds exactly one JSON document, and nothing else. This module formats and writes; it
knows no room and no result type.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from rich.console import Console, RenderableType
from rich.table import Table

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
    """
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
    else:
        stdout().print(text)


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
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)  # data is not markup
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console
