"""Parts of the documentation that scripts fill: what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

import re


def marks(name: str) -> tuple[str, str]:
    """What stands before and behind the place of a name."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def filled(page: str, name: str, block: str) -> str:
    """A page with a block of Markdown in the place of that name.

    Raises:
        ValueError: The place is not there exactly once.
    """
    begin, end = marks(name)
    text, count = re.subn(
        rf"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{block}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected {begin} ... {end} once in the page, found it {count} times")
    return text
