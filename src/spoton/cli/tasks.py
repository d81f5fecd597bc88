"""`spoton tasks`: the bundled tasks, and what any task looks like to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.options import Json, TaskOptions
from spoton.cli.output import emit, facts, table

if TYPE_CHECKING:
    from spoton.tasks import Task

app = typer.Typer(help="List the bundled tasks, or show how a task is read.", no_args_is_help=True)


@command(app, "spoton tasks list", "spoton tasks list --family sentiment --json", name="list")
def list_bundled(
    family: Annotated[str | None, typer.Option(help="Only tasks of this family.")] = None,
    json: Json = False,
) -> None:
    """List the bundled tasks."""
    from spoton.tasks import list_tasks

    infos = [info for info in list_tasks() if family in (None, info.family)]
    document = [
        {
            "name": info.name,
            "family": info.family,
            "labels": info.labels,
            "metrics": info.metrics,
            "license": info.license,
            "description": info.description,
        }
        for info in infos
    ]
    rows = [
        (
            info.name,
            info.family,
            ", ".join(info.labels or ["(open)"]),
            info.metrics[0],
            info.description.split(". ")[0],
        )
        for info in infos
    ]
    columns = ("name", "family", "labels", "metric", "description")
    emit(document, table(columns, rows) if rows else "No tasks.", as_json=json)


@command(
    app,
    "spoton tasks show news_sentiment",
    "spoton tasks show reviews.csv --input text --target label --train-size 100",
)
def show(
    task: TaskOptions,
    examples: Annotated[int, typer.Option(min=0, help="How many training examples to show.")] = 3,
    json: Json = False,
) -> None:
    """Show a task as the model will see it: splits, labels, metrics, examples."""
    found = task.load()
    document = _document(found, examples)
    shown = [
        (f"example {i + 1}", f"{row['input']} [{row['target']}]")
        for i, row in enumerate(document["examples"])
    ]
    pairs = [(name, _one_line(value)) for name, value in document.items() if name != "examples"]
    emit(document, facts([*pairs, *shown]), as_json=json)


def _document(task: Task, examples: int) -> dict[str, Any]:
    return {
        "name": task.name,
        "family": task.family,
        "splits": task.splits(),
        "labels": list(task.labels) if task.labels is not None else None,
        "metrics": list(task.metrics),
        "template": task.template,
        "source": task.source,
        "protocol": task.protocol,
        "license": task.license,
        "notes": list(task.notes),
        "data_hash": task.data_hash(),
        "examples": [{"input": row.input, "target": row.target} for row in task.train[:examples]],
    }


def _one_line(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(value) if isinstance(value, list) else value
