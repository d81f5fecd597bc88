"""A report as one HTML file with its figures as SVG; needs neither a network nor a script."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from spoton.study.report.figures.drawing import Drawing
from spoton.study.report.figures.page_svg import PageFigures
from spoton.study.report.parts import Content, Picture, Section, Table, TableCell, distinct

_STYLE = """
:root { --ink: #1d2733; --soft: #5c6b7a; --line: #dde3e9; --back: #f6f8fa; --link: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); }
nav { position: fixed; inset: 0 auto 0 0; width: 15rem; overflow-y: auto; padding: 1.5rem 1rem; background: var(--back);
  border-right: 1px solid var(--line); font-size: 13px; }
nav a { display: block; padding: .15rem 0; color: var(--ink); text-decoration: none; overflow-wrap: anywhere; }
nav a:hover { color: var(--link); } nav a.part { padding-left: .9rem; color: var(--soft); }
main { margin-left: 15rem; padding: 1.5rem 2.5rem 4rem; max-width: 82rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { margin-top: 2.6rem; font-size: 1.3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { margin-top: 1.9rem; font-size: 1.05rem; } p { max-width: 62rem; }
table { border-collapse: collapse; font-size: 13.5px; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--back); font-weight: 600; }
td.helps, td.yes { color: #1a6b3c; font-weight: 600; } td.hurts, td.no { color: #a8321f; font-weight: 600; }
.wide { overflow-x: auto; } figure { margin: 1.2rem 0; }
figure svg { display: block; max-width: none; }
figcaption { color: var(--soft); font-size: 13px; max-width: 62rem; }
summary { cursor: pointer; color: var(--link); } td { overflow-wrap: break-word; max-width: 46rem; }
@media (max-width: 60rem) { main { margin: 0; padding: 1rem; }
  nav { position: static; width: auto; padding: .6rem 1rem; border-right: 0; border-bottom: 1px solid var(--line); }
  nav a { display: inline-block; margin-right: 1rem; } nav a.part { display: none; } }
@media print { nav { display: none; } main { margin: 0; } }
"""


def as_html(title: str, sections: Sequence[Section], figures: Mapping[str, Drawing]) -> str:
    """Returns the whole page.

    Args:
        title: Heading of the page.
        sections: Sections of the report.
        figures: Figures by name.
    """
    anchors = distinct((section.anchor for section in sections), taken=map(_figure_id, figures))
    links = "\n".join(
        f'<a href="#{anchor}"{" class=part" if section.level > 2 else ""}>{html.escape(section.title)}</a>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    drawn = PageFigures()
    body = "\n".join(
        _section(anchor, section, figures, drawn) for anchor, section in zip(anchors, sections, strict=True)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{_STYLE}{_alignment(sections)}{drawn.css()}</style>
</head>
<body>
<nav aria-label="Contents">{links}</nav>
<main>
<h1>{html.escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def _alignment(sections: Sequence[Section]) -> str:
    """Returns CSS rules for columns of numbers. A class on the table saves one per cell, the bulk of large reports."""
    tables = [block.filled for section in sections for block in section.blocks if isinstance(block, Table)]
    most = max((len(table.columns) for table in tables), default=0)
    columns = ", ".join(f".n{i} {tag}:nth-child({i})" for i in range(1, most + 1) for tag in ("th", "td"))
    return f"{columns} {{ text-align: right; white-space: nowrap; }}\n" if most else ""


def _section(anchor: str, section: Section, figures: Mapping[str, Drawing], drawn: PageFigures) -> str:
    heading = f'<h{section.level} id="{anchor}">{html.escape(section.title)}</h{section.level}>'
    return "\n".join([heading, *(_block(block, figures, drawn) for block in section.blocks)])


def _block(block: Content, figures: Mapping[str, Drawing], drawn: PageFigures) -> str:
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    if isinstance(block, Picture):
        drawing = figures[block.name]
        element = drawn.element(drawing.write("page"), drawing.words, block.caption)
        return (
            f'<figure id="{_figure_id(block.name)}"><div class="wide" tabindex="0">{element}</div>'
            f"<figcaption>{html.escape(block.caption)}</figcaption></figure>"
        )
    return _table(block.filled)


def _figure_id(name: str) -> str:
    return f"figure-{name}"


def _table(table: Table) -> str:
    numeric = " ".join(f"n{i}" for i, is_number in enumerate(table.numeric, start=1) if is_number)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in table.columns)
    rows = "\n".join("<tr>" + "".join(map(_cell, table.columns, row)) + "</tr>" for row in table.rows)
    kind = f' class="{numeric}"' if numeric else ""
    text = f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    return (
        f"<details><summary>{html.escape(table.folded)}</summary>{text}</details>" if table.folded else text
    )


def _cell(column: str, cell: TableCell) -> str:
    text = str(cell)
    judged = column in ("answer", "outcome", "learned", "learned its own task")
    kind = f' class="{text}"' if judged and text in ("helps", "hurts", "yes", "no") else ""
    return f"<td{kind}>{html.escape(text)}</td>"
