"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spoton.study.report.parts import Block, Cell, Picture, Section, Table


def as_markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, Path]) -> str:
    """The whole report; figures for which there is no file are left out.

    Args:
        title: Its heading.
        sections: What is in it.
        pictures: Path of each figure's file, as seen from the Markdown file.
    """
    parts = [f"# {_plain(title)}"]
    for section in sections:
        parts.append(f"{'#' * section.level} {_plain(section.title)}")
        parts += [told for block in section.blocks if (told := _block(block, pictures))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, pictures: Mapping[str, Path]) -> str:
    if isinstance(block, str):
        return _plain(block)
    if isinstance(block, Picture):
        path = pictures.get(block.name)
        return f"![{_plain(block.caption)}]({path.as_posix()})" if path else ""
    return _table(block.filled)


def _table(table: Table) -> str:
    rules = ["--:" if is_number else "---" for is_number in table.numeric]
    lines: list[Sequence[Cell]] = [table.columns, rules, *table.rows]
    text = "\n".join(
        "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
    return f"{_plain(table.folded)}:\n\n{text}" if table.folded else text


def _plain(text: Cell) -> str:
    """Text in which names of tasks are no markup: Markdown lets HTML through."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
