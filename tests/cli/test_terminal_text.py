"""Text of others on a terminal: shown, not sent."""

from __future__ import annotations

import io

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spoton.cli.terminal_text import SafeConsole, printable

EVIL = "\x1b]0;owned\x07\x9b31m\u202e\ud800\r"


def test_controls_are_shown_as_escapes_and_all_else_stays() -> None:
    assert printable("caf\u00e9 \U0001f600\t\n") == "caf\u00e9 \U0001f600\t\n"
    assert printable(EVIL) == r"\x1b]0;owned\x07\x9b31m\u202e\ud800\x0d"


@pytest.mark.parametrize("kind", ["text", "markup", "styled", "table", "panel"])
def test_nothing_that_is_printed_reaches_the_terminal_raw(kind: str) -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, width=200)
    table = Table(EVIL)
    table.add_row(EVIL)
    shown = {"text": EVIL, "markup": f"[bold]{EVIL}[/bold]", "styled": Text(EVIL, "red"), "table": table,
             "panel": Panel(EVIL, title=EVIL)}[kind]  # fmt: skip
    console.print(shown)
    assert "owne" in out.getvalue() and r"\x1b" in out.getvalue()
    assert not set("\x1b\x07\x9b\u202e\ud800\r") & set(out.getvalue())
