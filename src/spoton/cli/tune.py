"""`spoton tune`: tunes a prompt for one task, or all weights of the model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spoton.cli.command import USER_ERROR, command
from spoton.cli.data_options import TaskOptions, note_unknown
from spoton.cli.options import Evaluation, Json, Library, ModelOptions, Overwrite
from spoton.cli.output import emit, facts, note
from spoton.cli.progress import live_progress
from spoton.cli.recipe_options import RecipeOptions

app = typer.Typer()


@command(
    app,
    "spoton tune reviews.csv --input text --target label --out reviews.safetensors",
    "spoton tune news_sentiment --init movie_sentiment --steps 100 --out news.safetensors",
    "spoton tune reviews.csv --method model --out tuned-model",
)
def tune(
    task: TaskOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    out: Annotated[
        Path,
        typer.Option(
            help="Where to save the prompt; its curve and record are written next to it. With --method model: a folder."
        ),
    ],
    method: Annotated[
        Literal["prompt", "model"],
        typer.Option(help="Tune a prompt for the frozen model, or all weights of a copy of it."),
    ] = "prompt",
    evaluation: Evaluation = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where the same command stopped.")
    ] = False,
    overwrite: Overwrite = False,
    library: Library = None,
    json: Json = False,
) -> None:
    """Tune a soft prompt for a task, from scratch or from another prompt; or tune all weights of the model."""
    options: dict[str, Any] = {"evaluation": evaluation, "resume": resume, "overwrite": overwrite}
    record: dict[str, Any]
    if method == "prompt":
        from spoton.tuning.tune_to_file import tune_to_file

        asked, chosen, frozen = task.load(model), recipe.recipe(library), model.load()
        kept = out.with_suffix(".budget.json")
        if not resume:
            with contextlib.suppress(OSError):  # --out is checked later
                kept.unlink(missing_ok=True)
        chosen = recipe.budgeted(chosen, frozen, asked, mode=evaluation, kept=kept)
        note_unknown(frozen, asked.labels)
        with live_progress(runs=1 if recipe.leaves_budget_open else 0) as on_event:
            record = tune_to_file(frozen, asked, chosen, out, on_event=on_event, **options)
        kept.unlink(missing_ok=True)
        place = "prompt"
    else:
        from spoton.tuning.full_model.tune_to_folder import tune_model_to_folder

        all_weights, exact = recipe.model_recipe(library), model.in_float32()
        asked, frozen = task.load(exact), exact.load()
        note_unknown(frozen, asked.labels)
        with live_progress() as on_event:
            record = tune_model_to_folder(frozen, asked, all_weights, out, on_event=on_event, **options)
        place = "folder"
    scores = [
        (f"{split} {name}", score)
        for split, found in record["scores"].items()
        for name, score in found.items()
    ]
    names = ("task", "model", "evaluation", "best_step", "steps", "truncated", place, "curves", "seconds")
    tuned = ("tuned", f"{record['tuned_parameters']:,} parameters, {record['tuned_bytes'] / 1e6:,.2f} MB")
    memory = ("memory a step", f"{record['activation_bytes'] / 1e6:,.0f} MB next to the model")
    emit(record, facts([*scores, *((name, record[name]) for name in names), tuned, memory]), as_json=json)
    if record["stopped"] == "diverged":
        note(record["message"])
        raise typer.Exit(USER_ERROR)
