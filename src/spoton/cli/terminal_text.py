"""Text that others wrote, made safe to print: what would move the cursor or recolour a terminal is shown, not sent.

Names, labels, cards and error messages may come from a stranger's file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 and C1 controls but tab and newline, the marks that reorder a line (Trojan Source), and lone surrogates, which no
# encoding can write.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every control character as its escape, such as `\\x1b`."""
    return _UNSAFE.sub(_escape, text)


class SafeConsole(Console):
    """A console that prints text of others as `printable` has it; its own colours are not text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as any console, with the text of every segment made safe."""
        if isinstance(renderable, str):
            renderable = printable(renderable)
        elif isinstance(renderable, Text) and _UNSAFE.search(renderable.plain):
            renderable = Text(printable(renderable.plain), renderable.style)
        for segment in super().render(renderable, options):
            if segment.control or not _UNSAFE.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
