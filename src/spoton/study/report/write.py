"""Writing a report's files."""

from __future__ import annotations

from pathlib import Path

from spoton.errors import StudyError
from spoton.files import atomic_write, require_writable
from spoton.study.analysis.analyse import Analysis
from spoton.study.report.figures import figures
from spoton.study.report.markdown import as_markdown
from spoton.study.report.page import as_html
from spoton.study.report.pictures import draw_pictures
from spoton.study.report.sections import sections, title


def write_report(analysis: Analysis, out: Path, *, png: bool = True) -> list[Path]:
    """Writes ``out``, the same as ``.md`` beside it, and the figures as PNG in ``<name>_figures``.

    Args:
        analysis: What to report.
        out: The HTML file.
        png: Whether to draw pictures.

    Returns:
        The files written, the HTML first.

    Raises:
        StudyError: The name does not end in ``.html``, or plotly is not installed.
        SpotonError: A file cannot be written.
    """
    if out.suffix != ".html":
        raise StudyError(
            f"{out} cannot be the report: expected a name that ends in .html. Use {out.with_suffix('.html')}."
        )
    require_writable(out)
    drawn = figures(analysis)
    parts = sections(analysis, tuple(drawn))
    pictures = draw_pictures(analysis, out.parent / f"{out.stem}_figures") if png else {}
    page = as_html(title(analysis), parts, drawn)
    markdown = as_markdown(
        title(analysis), parts, {name: path.relative_to(out.parent) for name, path in pictures.items()}
    )
    atomic_write(out, page.encode())
    atomic_write(out.with_suffix(".md"), markdown.encode())
    return [out, out.with_suffix(".md"), *pictures.values()]
