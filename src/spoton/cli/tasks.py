"""`spoton tasks`: lists the catalog, and shows a task as the model reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.data_options import TaskOptions
from spoton.cli.options import Json
from spoton.cli.output import emit, facts, table

if TYPE_CHECKING:
    from spoton.tasks import Task, TaskInfo

app = typer.Typer(help="List the tasks of the catalog, or show how a task is read.", no_args_is_help=True)


@command(
    app,
    "spoton tasks list",
    "spoton tasks list --family sentiment --json",
    "spoton tasks list --study spot-paper",
    name="list",
)
def list_catalog(
    family: Annotated[str | None, typer.Option(help="Only tasks of this family.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Only tasks of this study, by role and size: spot-paper.")
    ] = None,
    json: Json = False,
) -> None:
    """List the tasks of the catalog."""
    from spoton.tasks import list_tasks

    infos = [info for info in list_tasks(study) if family in (None, info.family)]
    document = [_description(info) for info in infos]
    rows = [
        (
            *((info.study[study],) if study else ()),
            info.name,
            info.family,
            f"{info.train_size:,}" if info.train_size else "",
            _labels(info),
            info.scored_by[0],
            info.description.split(". ")[0],
        )
        for info in infos
    ]
    columns = (*(("role",) if study else ()), "name", "family", "size", "labels", "metric", "description")
    emit(document, table(columns, rows) if rows else "No tasks.", as_json=json)


def _description(info: TaskInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "aliases": info.aliases,
        "family": info.family,
        "size": info.train_size,
        "labels": info.labels,
        "metrics": info.metrics,
        "main_metric": info.scored_by[0],
        "study": info.study,
        "sources": [
            "folder",
            *(["archive"] if info.archive is not None else []),
            *([f"hub:{info.hub}"] if info.hub is not None else []),
        ],
        "template_source": info.template_source,
        "license": info.license,
        "citation": info.citation,
        "description": info.description,
    }


def _labels(info: TaskInfo) -> str:
    """Returns the label words, or the first and the last if there are many."""
    labels = info.labels or ("(open)",)
    return ", ".join(labels) if len(labels) <= 6 else f"{labels[0]} ... {labels[-1]}"


@command(
    app,
    "spoton tasks show news_sentiment",
    "spoton tasks show superglue/wic --data-dir data --protocol paper",
    "spoton tasks show reviews.csv --input text --target label --train-size 100",
)
def show(
    task: TaskOptions,
    examples: Annotated[int, typer.Option(min=0, help="How many training examples to show.")] = 3,
    json: Json = False,
) -> None:
    """Show a task as the model reads it: splits, labels, metrics, examples, and its catalog entry."""
    from spoton.errors import DownloadError

    info = task.described()
    try:
        found, missing = task.load(), None
    except DownloadError as error:
        if info is None:
            raise
        found, missing = None, str(error)
    document = (_described(info) if info else {}) | (_document(found, examples) if found else {})
    document |= {"rows_missing": missing} if missing else {}
    shown = [
        (f"example {i + 1}", f"{row['input']} [{row['target']}]")
        for i, row in enumerate(document.get("examples", ()))
    ]
    pairs = [
        (name, "\n".join(value) if name == "notes" else _one_line(value))
        for name, value in document.items()
        if name != "examples"
    ]
    emit(document, facts([*pairs, *shown]), as_json=json)


def _described(info: TaskInfo) -> dict[str, Any]:
    """Returns what is known of a task without its rows; a list of templates if every row gives several examples."""
    return {
        **_description(info),
        "doc_to_text": info.doc_to_text,
        "doc_to_target": info.doc_to_target,
        "prefix": info.prefix,
        "process_docs": info.process_docs,
    }


def _document(task: Task, examples: int) -> dict[str, Any]:
    return {
        "name": task.name,
        "family": task.family,
        "splits": task.splits(),
        "labels": list(task.labels) if task.labels is not None else None,
        "metrics": list(task.metrics),
        "form": task.form,
        "template": task.template,
        "source": task.source,
        "protocol": task.protocol,
        "license": task.license,
        "instruction": task.instruction,
        "notes": list(task.notes),
        "data_hash": task.data_hash(),
        "examples": [{"input": row.input, "target": row.target} for row in task.train[:examples]],
    }


def _one_line(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(value) if isinstance(value, list | tuple) else value
