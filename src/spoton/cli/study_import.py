"""`spoton study import`: a study from tables and prompt files of other people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, note

if TYPE_CHECKING:
    from spoton.study.results.study_results import StudyResults

app = typer.Typer()

_SHOWN = 8


@command(
    app,
    "spoton study import scores.csv --out my-study",
    "spoton study import table6.csv --wide --seeds-averaged 3 --out my-study",
    "spoton study import scores.csv --test test.csv --keys keys/ --families families.csv --out my-study",
    name="import",
)
def import_(
    scores: Annotated[
        Path,
        typer.Argument(
            help="Table source,target[,seed],score[,std] as CSV, TSV, JSON lines or Parquet; source `none`, "
            "`random` or empty: from scratch."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    test: Annotated[
        Path | None, typer.Option(help="The same for the test split. Without it, validation is reported.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Table target[,seed],score[,std] of runs from scratch.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="Folder of task embeddings: TASK.npy, TASK.SEED.pt, TASK/task_prompt, ..."),
    ] = None,
    values: Annotated[
        Path | None, typer.Option(help="Folder of final prompts, to compare in place of --keys.")
    ] = None,
    families: Annotated[Path | None, typer.Option(help="Table task,family[,learned].")] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="The tables are matrices: sources in rows, targets in columns.")
    ] = False,
    scratch_name: Annotated[
        str | None, typer.Option(help="The word for tuning from scratch in the table, if it is unusual.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Multiply scores by this: 100 for fractions.")] = 1.0,
    accept_scale: Annotated[
        bool,
        typer.Option("--accept-scale", help="Use scores as they are, even if some look like fractions."),
    ] = False,
    seeds_averaged: Annotated[
        int | None, typer.Option(min=1, help="Number of seeds behind each score without a seed.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the study.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing import.")] = False,
    json: Json = False,
) -> None:
    """Create a study from published score tables and prompt files."""
    from spoton.study.results.import_results import ImportedFiles, import_study, require_free
    from spoton.study.results.score_tables import ReadOptions, read_families

    require_free(out, replace=replace)
    _require_one_kind(keys, values)
    kinds, learned = read_families(families) if families else ({}, {})
    results = import_study(
        ImportedFiles(scores, test, baseline, keys, values, kinds, learned),
        ReadOptions(scale, seeds_averaged, wide, accept_scale, scratch_name), name,
    )  # fmt: skip
    path = results.save(out)
    document = _document(results) | {"folder": str(out), "results": str(path)}
    _print_notes(document)
    summary = f"{len(results.sources)} sources, {len(results.targets)} targets, {len(results.reported)} scores: {path}"
    emit(document, summary, as_json=json)


def _require_one_kind(keys: Path | None, values: Path | None) -> None:
    """Refuses keys together with final prompts: these are of different steps, and sources are compared by one kind.

    Raises:
        StudyError: Both are given.
    """
    from spoton.errors import StudyError

    if keys is not None and values is not None:
        raise StudyError(
            f"Either {keys} or {values} can be compared, not both. Give --keys for early checkpoints, or --values for "
            "final prompts."
        )


def _document(results: StudyResults) -> dict[str, Any]:
    from spoton.study.results.score_arrays import ScoreArrays

    arrays = ScoreArrays.of(results.reported, results.sources, results.targets)
    return {
        "sources": list(results.sources), "targets": list(results.targets), "validation": len(results.validation),
        "test": len(results.test), "keys": len(results.source_keys),
        "missing_pairs": [list(pair) for pair in arrays.missing_pairs()],
        "missing_keys": results.tasks_without_key(), "notes": list(results.metadata["notes"]),
    }  # fmt: skip


def _print_notes(document: dict[str, Any]) -> None:
    """Prints the notes of an import and what it has no scores or keys of."""
    for line in document["notes"]:
        note(f"Note: {line}")
    for word, names in (("scores of", document["missing_pairs"]), ("keys of", document["missing_keys"])):
        if names:
            note(f"Missing {word} {_listed(names)}")


def _listed(names: list[Any]) -> str:
    """Returns the first names or pairs, and how many more there are."""
    shown = [name if isinstance(name, str) else f"{name[0]} to {name[1]}" for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more (--json lists all)" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more
