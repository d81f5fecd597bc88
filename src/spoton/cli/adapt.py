"""`spoton adapt`: learn a prompt for one task from the prompts of others, and say whether that helped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType

from spoton.cli.command import command
from spoton.cli.data_options import TaskOptions, note_unknown
from spoton.cli.libraries import note_damaged, open_libraries
from spoton.cli.options import Evaluation, Json, K, Library, Metric, ModelOptions, Overwrite
from spoton.cli.output import emit, facts, note, table
from spoton.cli.progress import live_progress
from spoton.cli.recipe_options import RecipeOptions

app = typer.Typer()


@command(
    app,
    "spoton adapt reviews.csv --input text --target label --out reviews.safetensors",
    "spoton adapt news_sentiment --train-size 100 --seeds 3 --out news.safetensors --json",
)
def adapt(
    task: TaskOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to save the prompt; curves and record are written next to it. A killed run resumes there."
        ),
    ] = None,
    k: K = 1,
    metric: Metric = "average_tokens",
    method: Annotated[
        Literal["best-of-top-k", "weighted-average"],
        typer.Option(help="How the retrieved prompts are used.", rich_help_panel="Retrieval"),
    ] = "best-of-top-k",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds to run each arm with, from --seed on.")] = 1,
    evaluation: Evaluation = None,
    overwrite: Overwrite = False,
    library: Library = None,
    json: Json = False,
) -> None:
    """Retrieve related prompts, transfer, tune, and compare with tuning from scratch at equal budget."""
    from spoton.transfer import adapt as transfer

    asked = task.load(model)
    chosen = recipe.recipe(library)
    libraries = open_libraries(library)
    frozen = model.load()
    kept = None if out is None else out.with_suffix(".work") / "budget.json"
    chosen = recipe.budgeted(chosen, frozen, asked, runs=2 * seeds, kept=kept)
    note_unknown(frozen, asked.labels)
    with live_progress() as on_event:
        adapted = transfer(
            frozen, asked, libraries, chosen, method=method, k=k, metric=metric, seeds=seeds,
            evaluation=evaluation, out=out, overwrite=overwrite, on_event=on_event,
        )  # fmt: skip
    for opened in libraries:
        note_damaged(opened)
    document = adapted.to_json()
    for name, reason in document["damaged"].items():
        note(f"Skipped {name}: {reason}")
    emit(document, _report(document), as_json=json)


def _report(document: dict[str, Any]) -> RenderableType:
    scores, steps = document["scores"], document["steps"]
    rows = [(arm, found["validation"], found["test"], steps.get(arm)) for arm, found in scores.items()]
    columns = ("arm", "validation", "test", "steps")
    sources = ", ".join(f"{one['name']} ({one['similarity']:.3f})" for one in document["retrieved"])
    names = (
        "task", "model", "metric", "evaluation", "truncated", "chosen", "prompt", "curves", "seconds",
    )  # fmt: skip
    pairs = [("retrieved", sources), *((name, document.get(name)) for name in names)]
    says = [document["verdict"], *([document["speed"]["sentence"]] if document["speed"] else [])]
    says += [document["worth"]] if document["worth"] else []
    return Group(table(columns, rows, numbers=columns[1:]), "", facts(pairs), "", *says)
