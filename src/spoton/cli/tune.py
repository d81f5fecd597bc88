"""`spoton tune`: learn a prompt for one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoton.cli.command import USER_ERROR, command
from spoton.cli.options import Evaluation, Json, Library, ModelOptions, RecipeOptions, TaskOptions
from spoton.cli.output import emit, facts, note
from spoton.cli.progress import live_progress

app = typer.Typer()


@command(
    app,
    "spoton tune reviews.csv --input text --target label --out reviews.safetensors",
    "spoton tune news_sentiment --init movie_sentiment --steps 100 --out news.safetensors",
)
def tune(
    task: TaskOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    out: Annotated[Path, typer.Option(help="Where to save the prompt; its curve and record go beside it.")],
    evaluation: Evaluation = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same command stopped.")] = False,
    library: Library = None,
    json: Json = False,
) -> None:
    """Learn a soft prompt for a task, from scratch or from another prompt."""
    from spoton.tuning.run import tune_to_file

    asked = task.load()
    chosen = recipe.recipe(library)
    frozen = model.load()
    with live_progress() as on_event:
        record = tune_to_file(
            frozen, asked, chosen, out, evaluation=evaluation, resume=resume, on_event=on_event
        )
    scores = [
        (f"{split} {name}", score)
        for split, found in record["scores"].items()
        for name, score in found.items()
    ]
    names = ("task", "model", "evaluation", "best_step", "steps", "truncated", "prompt", "curves", "seconds")
    memory = ("memory a step", f"{record['activation_bytes'] / 1e6:,.0f} MB beside the model")
    emit(record, facts([*scores, *((name, record[name]) for name in names), memory]), as_json=json)
    if record["stopped"] == "diverged":
        note(record["message"])
        raise typer.Exit(USER_ERROR)
