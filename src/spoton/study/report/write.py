"""Writes the files of a report."""

from __future__ import annotations

from pathlib import Path

from spoton.errors import StudyError
from spoton.events import OnEvent, Progress, silent
from spoton.files import atomic_write, require_writable
from spoton.reading import read_text
from spoton.study.analysis.analyse import Analysis
from spoton.study.report.csv_tables import as_csv, tables_of
from spoton.study.report.figures import draw_figures
from spoton.study.report.figures.drawing import FORMATS, Format
from spoton.study.report.markdown import as_markdown
from spoton.study.report.page import as_html
from spoton.study.report.sections import is_report, sections, title


def write_report(
    analysis: Analysis, out: Path, *, files: bool = True, on_event: OnEvent = silent
) -> list[Path]:
    """Writes `out`, a `.md` copy next to it, figures in `<name>_figures` and tables in `<name>_tables`.

    Args:
        analysis: The analysis to report.
        out: The HTML file.
        files: Whether to write figures (SVG, PDF, PNG) and tables (CSV) as separate files.
        on_event: Called before the first figure and after each one.

    Returns:
        The files written, the HTML first.

    Raises:
        StudyError: The name does not end in `.html`, or the place of the page or of the Markdown holds a file that is
            not of a report.
        SpotonError: A file cannot be written.
    """
    if out.suffix != ".html":
        raise StudyError(
            f"{out} cannot be the report: expected a name that ends in .html. Use {out.with_suffix('.html')}."
        )
    for path, kind in ((out, "HTML"), (out.with_suffix(".md"), "Markdown")):
        _require_own(path, kind)
    require_writable(out)
    drawn = draw_figures(analysis)
    formats: tuple[Format, ...] = ("page", *FORMATS) if files else ("page",)
    for done, drawing in enumerate(drawn.values()):
        on_event(Progress("drawing", done, len(drawn), "figure"))
        for one in formats:
            drawing.write(one)
    on_event(Progress("drawing", len(drawn), len(drawn), "figure"))
    parts = sections(analysis, tuple(drawn))
    written: dict[Path, bytes] = {}
    pictures = {}
    if files:
        folder = out.parent / f"{out.stem}_figures"
        for name, drawing in drawn.items():
            written |= {folder / f"{name}.{one}": drawing.write(one) for one in FORMATS}
            pictures[name] = (folder / f"{name}.png").relative_to(out.parent)
        for table in tables_of(parts):
            written[out.parent / f"{out.stem}_tables" / f"{table.name}.csv"] = as_csv(table).encode()
    page = as_html(title(analysis), parts, drawn)
    written = {
        out: page.encode(), out.with_suffix(".md"): as_markdown(title(analysis), parts, pictures).encode(), **written
    }  # fmt: skip
    for path, data in written.items():
        atomic_write(path, data)
    return list(written)


def _require_own(path: Path, kind: str) -> None:
    """Refuses to replace a file that is not of a report, such as a page or notes of the user.

    A report is made anew from its study at any time, so a new one may replace it.
    """
    if not path.is_file():
        return
    try:
        text = read_text(path)
    except (OSError, UnicodeError):
        text = ""
    if not is_report(text):
        raise StudyError(
            f"{path} exists and is not the {kind} of a report, but the {kind} of this report would go there. "
            "Choose another --out, or move that file."
        )
