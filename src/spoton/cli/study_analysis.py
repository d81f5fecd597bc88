"""`spoton study analyse` and `report`: what follows from the results of a study."""

from __future__ import annotations

import math
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, note, stdout, table
from spoton.cli.progress import live_progress

if TYPE_CHECKING:
    from spoton.study.analysis.analyse import Analysis
    from spoton.study.analysis.start_groups import Effect

app = typer.Typer()

Folder = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help="Folder or fsspec URL of a study that ran or was imported."),
]


@command(app, "spoton study analyse my-study", "spoton study analyse my-study --json > analysis.json")
def analyse(folder: Folder, json: Json = False) -> None:
    """Print what follows from the results: verdicts, error reductions, correlation, retrieval."""
    from spoton.study.analysis.analysis_json import analysis_json

    found = _analysis(folder)
    if json:
        emit(analysis_json(found), "", as_json=True)
        return
    for part in _summary(found):
        stdout().print(part)


@command(app, "spoton study report my-study --out report.html", "spoton study report my-study --open")
def report(
    folder: Folder,
    out: Annotated[
        Path, typer.Option(help="The HTML file; Markdown, figures and tables go next to it.")
    ] = Path("report.html"),
    files: Annotated[
        bool, typer.Option(help="Also write figures (SVG, PDF, PNG) and tables (CSV) as files.")
    ] = True,
    open_: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
    json: Json = False,
) -> None:
    """Write the report: one HTML file that needs no network, Markdown, figures for papers, tables as CSV."""
    from spoton.events import Progress
    from spoton.study.report import write_report

    with live_progress() as on_event:
        on_event(Progress("analysing", 0, 1, "study"))
        found = _analysis(folder)
        on_event(Progress("analysing", 1, 1, "study"))
        written = write_report(found, out, files=files, on_event=on_event)
    for path in written[:2]:
        note(f"Wrote {path}")
    for place in sorted({path.parent for path in written[2:]}):
        note(f"Wrote {sum(path.parent == place for path in written[2:])} files in {place}")
    emit({"files": [str(path) for path in written]}, str(written[0]), as_json=json)
    if open_ and not webbrowser.open(out.resolve().as_uri()):
        note(f"No browser could be opened. Open {out} yourself.")


def _analysis(folder: str) -> Analysis:
    from spoton.study.analysis.analyse import analyse
    from spoton.study.results.collect import results_in

    return analyse(results_in(folder))


def _effect(effect: Effect) -> tuple[str | None, str | None]:
    """Returns a mean gain in points and its interval, as text; None where unknown."""
    low, high = effect.interval.low, effect.interval.high
    return (
        None if math.isnan(effect.mean) else f"{effect.mean:+z.1f}",
        None if math.isnan(low) else f"{low:+z.1f} to {high:+z.1f}",
    )


def _summary(found: Analysis) -> list[Any]:
    """Verdicts, what is missing, gains by choice, the sources by mean error reduction, and Table 3."""
    from spoton.study.analysis.advice import caveats
    from spoton.study.analysis.by_target import ways_by_target
    from spoton.study.analysis.verdicts import signed, verdicts

    parts: list[Any] = [f"{one.question} {one.answer}. {one.sentence}\n" for one in verdicts(found)]
    parts += [f"Note: {line}\n" for line in caveats(found)]
    ways = ways_by_target(found)
    gains = [
        (name, *_effect(one), *(_effect(ways.where_learned[name]) if ways.where_learned else (None, None)))
        for name, one in ways.overall.items()
    ]
    of_starts = ("start", "gain", "95 %", "where scratch learned", "its 95 %")
    parts.append(table(of_starts, gains, numbers=of_starts[1:]))
    parts.append("")
    columns = ("source", "mean error reduction %", "median", "targets")
    parts.append(table(columns, found.by_mean_reduction(), numbers=columns[1:]))
    parts.append("")
    rows = [
        (
            row.method,
            row.metric,
            row.k,
            signed(row.absolute),
            signed(row.relative),
            "unknown" if math.isnan(row.average.mean) else f"{row.average.mean:.1f}",
        )
        for row in found.rows
    ]
    headings = ("method", "similarity", "k", "change", "error reduction %", "average")
    parts.append(table(headings, rows, numbers=("k", "change", "error reduction %", "average")))
    for one in found.replays:
        rungs = ", ".join(map(str, one.halving.rungs))
        parts.append(
            f"\nHalving after {rungs} steps would have saved {one.saved:.0%} of the steps of {one.cells} transfer "
            f"cells and changed the score of each target's best source by {signed(one.change)} points; the choice "
            f"of source stays the same in {one.same} of {one.groups}."
        )
    if dropped := found.results.dropped:
        parts.append(
            f"\n{len(dropped)} transfer cells were dropped by halving; their scores are from the step of the drop."
        )
    return parts
