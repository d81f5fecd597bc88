"""`spoton study import`, `analyse` and `report`: what follows from the results of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, note, stdout, table

if TYPE_CHECKING:
    from spoton.study.analysis.analyse import Analysis

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="Folder of a study: one that ran, or that `import` made.")]


@command(
    app,
    "spoton study import scores.csv --out my-study",
    "spoton study import scores.csv --test test.csv --keys keys/ --families families.csv --out my-study",
    name="import",
)
def import_(
    scores: Annotated[
        Path,
        typer.Argument(help="CSV source,target[,seed],score[,std]; source `none` or empty: from scratch."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    test: Annotated[
        Path | None, typer.Option(help="The same for the test split. Without it, validation is reported.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="CSV target[,seed],score[,std] of runs from scratch.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of task embeddings: TASK.npy, TASK.SEED.pt, ...")
    ] = None,
    values: Annotated[
        Path | None, typer.Option(help="Folder of final prompts, compared where there are no keys.")
    ] = None,
    families: Annotated[Path | None, typer.Option(help="CSV task,family.")] = None,
    scale: Annotated[float, typer.Option(help="Multiply scores with this: 100 for fractions.")] = 1.0,
    seeds_averaged: Annotated[
        int | None, typer.Option(min=1, help="How many seeds a score without a seed is the mean of.")
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the study.")] = "",
    json: Json = False,
) -> None:
    """Make a study of score tables and prompt files of others."""
    from spoton.study.results.import_results import import_study, read_families

    results = import_study(
        scores, test=test, baseline=baseline, keys=keys, values=values,
        families=read_families(families) if families else None,
        scale=scale, seeds_averaged=seeds_averaged, name=name,
    )  # fmt: skip
    path = results.save(out)
    document = {
        "folder": str(out), "results": str(path), "sources": list(results.sources), "targets": list(results.targets),
        "validation": len(results.validation), "test": len(results.test), "keys": len(results.source_keys),
    }  # fmt: skip
    told = f"{len(results.sources)} sources, {len(results.targets)} targets, {len(results.reported)} scores: {path}"
    emit(document, told, as_json=json)


@command(app, "spoton study analyse my-study", "spoton study analyse my-study --json > analysis.json")
def analyse(folder: Folder, json: Json = False) -> None:
    """Print what follows from the results: verdicts, error reductions, correlation, retrieval."""
    from spoton.study.analysis.document import document

    found = _analysis(folder)
    text = _summary(found)
    if json:
        emit(document(found), "", as_json=True)
        return
    for part in text:
        stdout().print(part)


@command(app, "spoton study report my-study --out report.html")
def report(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The HTML file; Markdown and pictures go beside it.")] = Path(
        "report.html"
    ),
    png: Annotated[bool, typer.Option(help="Draw the figures as PNG, too.")] = True,
    json: Json = False,
) -> None:
    """Write the report: one HTML file that needs no network, Markdown with the same numbers, and pictures."""
    from spoton.study.report import write_report

    written = write_report(_analysis(folder), out, png=png)
    for path in written:
        note(f"Wrote {path}")
    emit({"files": [str(path) for path in written]}, str(written[0]), as_json=json)


def _analysis(folder: Path) -> Analysis:
    from spoton.study.analysis.analyse import analyse
    from spoton.study.results.collect import results_in

    return analyse(results_in(folder))


def _summary(found: Analysis) -> list[Any]:
    """Verdicts, the sources by mean error reduction, and Table 3."""
    from spoton.study.analysis.verdicts import signed, verdicts

    parts: list[Any] = [f"{one.question} {one.answer}. {one.sentence}\n" for one in verdicts(found)]
    columns = ("source", "mean error reduction %", "targets")
    parts.append(table(columns, found.by_mean_reduction(), numbers=columns[1:]))
    parts.append("")
    rows = [
        (row.method, row.metric, row.k, signed(row.absolute), signed(row.relative), f"{row.average.mean:.1f}")
        for row in found.rows
    ]
    headings = ("method", "similarity", "k", "change", "error reduction %", "average")
    parts.append(table(headings, rows, numbers=("k", "change", "error reduction %", "average")))
    for one in found.replays:
        rungs = ", ".join(map(str, one.halving.rungs))
        parts.append(
            f"\nHalving after {rungs} steps would have saved {one.saved:.0%} of the steps of {one.cells} transfer "
            f"cells and changed the score of each target's best source by {signed(one.change)} points; the choice "
            f"stays the same in {one.same} of {one.groups}."
        )
    if dropped := found.results.dropped:
        parts.append(
            f"\n{len(dropped)} transfer cells were dropped by halving; their scores are those they had by then."
        )
    return parts
