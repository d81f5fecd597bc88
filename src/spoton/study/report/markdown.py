"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spoton.study.report.parts import Block, Figure, Section, Table


def as_markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, Path]) -> str:
    """The whole report; figures for which there is no picture are left out.

    Args:
        title: Its heading.
        sections: What is in it.
        pictures: Path of each figure's picture, as seen from the Markdown file.
    """
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"{'#' * section.level} {section.title}")
        parts += [told for block in section.blocks if (told := _block(block, pictures))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, pictures: Mapping[str, Path]) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Figure):
        path = pictures.get(block.name)
        return f"![{block.caption}]({path.as_posix()})" if path else ""
    return _table(block)


def _table(table: Table) -> str:
    rules = ["--:" if column in table.numbers else "---" for column in table.columns]
    lines = [table.columns, rules, *table.rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{table.folded}:\n\n{text}" if table.folded else text
