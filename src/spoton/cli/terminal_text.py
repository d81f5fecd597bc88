"""Makes untrusted text safe to print: characters that would control the terminal are shown as escapes, not sent.

Names, labels, cards and error messages may come from an untrusted file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 and C1 controls except tab and newline, the marks that reorder a line (Trojan Source), and lone surrogates, which
# no encoding can write.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Returns the text with every control character as its escape, such as `\\x1b`."""
    return _UNSAFE.sub(_escape, text)


class SafeConsole(Console):
    """A console that prints text through `printable`; its own colours are not affected."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders like any console, with the text of every segment made safe."""
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
