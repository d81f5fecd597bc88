"""A report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from spoton.study.report.parts import Content, Picture, Section, Table, TableCell

_SPECIAL = re.compile(r"[\\`*\[\]|]")


def as_markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, Path]) -> str:
    """Returns the whole report, without figures that lack a file.

    Args:
        title: Heading of the report.
        sections: Sections of the report.
        pictures: Path of each figure's file, relative to the Markdown file.
    """
    parts = [f"# {_plain(title)}"]
    for section in sections:
        parts.append(f"{'#' * section.level} {_plain(section.title)}")
        parts += [told for block in section.blocks if (told := _block(block, pictures))]
    return "\n\n".join(parts) + "\n"


def _block(block: Content, pictures: Mapping[str, Path]) -> str:
    if isinstance(block, str):
        return _plain(block)
    if isinstance(block, Picture):
        path = pictures.get(block.name)
        return f"![{_plain(block.caption)}]({quote(path.as_posix())})" if path else ""
    return _table(block.filled)


def _table(table: Table) -> str:
    rules = ["--:" if is_number else "---" for is_number in table.numeric]
    lines: list[str] = ["| " + " | ".join(map(_plain, table.columns)) + " |", "| " + " | ".join(rules) + " |"]
    lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in table.rows]
    text = "\n".join(lines)
    return f"{_plain(table.folded)}:\n\n{text}" if table.folded else text


def _plain(text: TableCell) -> str:
    """Escapes text for Markdown, since names of tasks and labels come from files and may contain tags or links."""
    escaped = _SPECIAL.sub(r"\\\g<0>", " ".join(str(text).splitlines()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
