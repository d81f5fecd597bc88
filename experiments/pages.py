"""Parts of the documentation that scripts fill: the text between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

import re


def marks(name: str) -> tuple[str, str]:
    """Returns the markers before and after the part of a name."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def filled(page: str, name: str, block: str) -> str:
    """Returns a page with a block of Markdown as the part of that name.

    Raises:
        ValueError: The page does not have this part exactly once.
    """
    begin, end = marks(name)
    text, count = re.subn(
        rf"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{block}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected {begin} ... {end} once in the page, found it {count} times")
    return text
