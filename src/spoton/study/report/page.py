"""A report as one HTML file: figures are drawn by plotly.js, which is in the file once, so no network is needed.

It is there compressed, which browsers can undo since 2023: 1.9 MB instead of the 4.8 MB that it takes as text.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from spoton.errors import StudyError
from spoton.study.report.parts import Block, Figure, Section, Table

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
th { background: var(--back); font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap; }
td.helps, td.yes { color: #1a6b3c; font-weight: 600; } td.hurts, td.no { color: #a8321f; font-weight: 600; }
.wide { overflow-x: auto; } figure { margin: 1.2rem 0; }
figcaption { color: var(--soft); font-size: 13px; max-width: 62rem; }
summary { cursor: pointer; color: var(--link); } td { overflow-wrap: break-word; max-width: 46rem; }
@media (max-width: 60rem) { nav { position: static; width: auto; } main { margin: 0; padding: 1rem; } }
@media print { nav { display: none; } main { margin: 0; } }
"""
_DRAW = """
async function draw() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
  for (const [name, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent))) {
    await Plotly.newPlot("figure-" + name, figure.data, figure.layout,
      {displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"]});
  }
}
draw().then(() => { document.body.dataset.drawn = "yes"; }, error => {
  for (const place of document.querySelectorAll(".plot")) {
    place.textContent = "This figure could not be drawn (" + error + "). It needs a browser of 2023 or later.";
  }
  console.error(error);
});
"""


def as_html(title: str, sections: Sequence[Section], figures: Mapping[str, dict[str, Any]]) -> str:
    """The whole page.

    Args:
        title: Its heading.
        sections: What is in it.
        figures: Data and layout of each figure, as plotly.js takes them.

    Raises:
        StudyError: plotly is not installed.
    """
    links = "\n".join(
        f'<a href="#{section.anchor}"{" class=part" if section.level > 2 else ""}>{html.escape(section.title)}</a>'
        for section in sections
    )
    body = "\n".join(_section(section, figures) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<nav aria-label="Contents">{links}</nav>
<main>
<h1>{html.escape(title)}</h1>
{body}
</main>
<script type="application/json" id="figures">{_json(figures)}</script>
<script type="application/gzip" id="plotly">{_plotly_js()}</script>
<script>{_DRAW}</script>
</body>
</html>
"""


def _section(section: Section, figures: Mapping[str, dict[str, Any]]) -> str:
    heading = f'<h{section.level} id="{section.anchor}">{html.escape(section.title)}</h{section.level}>'
    return "\n".join([heading, *(_block(block, figures) for block in section.blocks)])


def _block(block: Block, figures: Mapping[str, dict[str, Any]]) -> str:
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    if isinstance(block, Figure):
        height = figures[block.name]["layout"]["height"]
        return (
            f'<figure><div class="plot" id="figure-{block.name}" style="height:{height}px"></div>'
            f"<figcaption>{html.escape(block.caption)}</figcaption></figure>"
        )
    return _table(block)


def _table(table: Table) -> str:
    numeric = [' class="number"' if column in table.numbers else "" for column in table.columns]
    head = "".join(
        f"<th{kind}>{html.escape(text)}</th>" for kind, text in zip(numeric, table.columns, strict=True)
    )
    rows = "\n".join(
        "<tr>" + "".join(map(_cell, table.columns, numeric, row)) + "</tr>" for row in table.rows
    )
    text = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    return (
        f"<details><summary>{html.escape(table.folded)}</summary>{text}</details>" if table.folded else text
    )


def _cell(column: str, kind: str, text: str) -> str:
    if column in ("answer", "outcome", "learned") and text in ("helps", "hurts", "yes", "no"):
        kind = f' class="{text}"'
    return f"<td{kind}>{html.escape(text)}</td>"


def _json(figures: Mapping[str, dict[str, Any]]) -> str:
    """JSON that cannot end the script element it stands in, whatever tasks are called."""
    return json.dumps(figures, allow_nan=False).replace("<", "\\u003c")


def _plotly_js() -> str:
    """plotly.js, packed by gzip, as base64; the same bytes each time."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise StudyError("The HTML report needs plotly: pip install 'spoton[report]'.") from error
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
