"""A report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from spoton.study.report.parts import Block, Figure, Section, Table

_SPECIAL = re.compile(r"[\\`*\[\]|]")


def as_markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, Path]) -> str:
    """The whole report; figures for which there is no picture are left out.

    Args:
        title: Its heading.
        sections: What is in it.
        pictures: Path of each figure's picture, as seen from the Markdown file.
    """
    parts = [f"# {_plain(title)}"]
    for section in sections:
        parts.append(f"{'#' * section.level} {_plain(section.title)}")
        parts += [told for block in section.blocks if (told := _block(block, pictures))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, pictures: Mapping[str, Path]) -> str:
    if isinstance(block, str):
        return _plain(block)
    if isinstance(block, Figure):
        path = pictures.get(block.name)
        return f"![{_plain(block.caption)}]({quote(path.as_posix())})" if path else ""
    return _table(block)


def _table(table: Table) -> str:
    rules = ["--:" if column in table.numbers else "---" for column in table.columns]
    lines = [table.columns, rules, *table.rows]
    text = "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)
    return f"{_plain(table.folded)}:\n\n{text}" if table.folded else text


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names of tasks and labels come from files, and may hold tags or links."""
    escaped = _SPECIAL.sub(r"\\\g<0>", " ".join(text.splitlines()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
