"""`spoton adapt`: tune a prompt for one task from prompts of other tasks, and report whether that helped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType

from spoton.cli.command import command
from spoton.cli.data_options import TaskOptions, note_unknown
from spoton.cli.libraries import note_damaged, open_libraries
from spoton.cli.options import Evaluation, Json, K, Library, ModelOptions, Overwrite, Rank, Similarity
from spoton.cli.output import emit, facts, note, table
from spoton.cli.progress import live_progress
from spoton.cli.recipe_options import RecipeOptions
from spoton.errors import RecipeError

if TYPE_CHECKING:
    from spoton.prompts import PromptLibrary
    from spoton.tasks import Task
    from spoton.transfer import Adapted

app = typer.Typer()


@command(
    app,
    "spoton adapt reviews.csv --input text --target label --out reviews.safetensors",
    "spoton adapt news_sentiment --train-size 100 --seeds 3 --out news.safetensors --json",
    "spoton adapt reviews.csv --input text --target label --steps 0 --out reviews.safetensors",
    "spoton adapt reviews.csv --input text --target label --rank trial -k 4 --method halving",
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
    metric: Similarity = "average_tokens",
    rank: Rank = "similarity",
    method: Annotated[
        Literal[
            "best-of-top-k",
            "weighted-average",
            "halving",
            "task-vectors",
            "learned-mix",
            "multiplicative",
            "mixture",
        ],
        typer.Option(help="How the retrieved prompts are combined.", rich_help_panel="Retrieval"),
    ] = "best-of-top-k",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds to run each arm with, from --seed on.")] = 1,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Keep the prompts of all seeds as one ensemble. Needs --seeds."),
    ] = False,
    evaluation: Evaluation = None,
    overwrite: Overwrite = False,
    library: Library = None,
    json: Json = False,
) -> None:
    """Retrieve related prompts, tune from them, and compare with tuning from scratch at equal budget.

    With `--steps 0` nothing is tuned: the best source in a trial is calibrated and tested.
    """
    from spoton.transfer import adapt as transfer
    from spoton.transfer.untuned import adapt_untuned
    from spoton.transfer.work_folder import BUDGET, require_out, work_folder

    untuned = recipe.steps == 0
    if untuned:
        _require_nothing_tuned(rank, metric, method, seeds, ensemble, recipe.minutes)
    if out is not None:
        require_out(out, overwrite=overwrite)
    asked = task.load(model)
    chosen = replace(recipe, steps=None if untuned else recipe.steps).recipe(library)
    libraries = open_libraries(library)
    frozen = model.load()
    if untuned:
        note_unknown(frozen, asked.labels)
        with live_progress() as on_event:
            adapted = adapt_untuned(
                frozen, asked, libraries, chosen,
                k=k, evaluation=evaluation, out=out, overwrite=overwrite, on_event=on_event,
            )  # fmt: skip
        _emit(adapted, asked, libraries, as_json=json)
        return
    kept = None if out is None else work_folder(out) / BUDGET
    chosen = recipe.budgeted(chosen, frozen, asked, runs=2 * seeds, mode=evaluation, kept=kept)
    note_unknown(frozen, asked.labels)
    announced = 2 * seeds if recipe.leaves_budget_open else 0
    with recipe.minutes_named(chosen), live_progress(announced) as on_event:
        adapted = transfer(
            frozen, asked, libraries, chosen, method=method, rank=rank, k=k, metric=metric, seeds=seeds,
            ensemble=ensemble, evaluation=evaluation, out=out, overwrite=overwrite, on_event=on_event,
        )  # fmt: skip
    _emit(adapted, asked, libraries, as_json=json)


def _require_nothing_tuned(
    rank: str, metric: str, method: str, seeds: int, ensemble: bool, minutes: float | None
) -> None:
    """Refuses options that need tuning.

    Raises:
        RecipeError: Such an option is given.
    """
    given = [f"--rank {rank}"] if rank == "displacement" else []
    given += [f"--similarity {metric}"] if metric != "average_tokens" else []
    given += [f"--method {method}"] if method != "best-of-top-k" else []
    given += [f"--seeds {seeds}"] if seeds != 1 else []
    given += ["--ensemble"] if ensemble else []
    given += [f"--minutes {minutes:g}"] if minutes is not None else []
    if given:
        raise RecipeError(
            f"--steps 0 tunes nothing and always ranks by trial; found {', '.join(given)}. Leave it out, or give steps."
        )


def _emit(adapted: Adapted, task: Task, libraries: Sequence[PromptLibrary], *, as_json: bool) -> None:
    for opened in libraries:
        note_damaged(opened)
    document = adapted.to_json()
    for name, reason in document["damaged"].items():
        note(f"Skipped {name}: {reason}")
    for told in document["notes"][len(task.notes) :]:  # those of the task were shown when it was read
        note(told)
    emit(document, _report(document), as_json=as_json)


def _report(document: dict[str, Any]) -> RenderableType:
    scores, steps = document["scores"], document["steps"]
    rows = [(arm, found["validation"], found["test"], steps.get(arm)) for arm, found in scores.items()]
    columns = ("arm", "validation", "test", "steps")
    sources = ", ".join(map(_source, document["retrieved"]))
    names = (
        "task", "model", "metric", "evaluation", "truncated", "chosen", "prompt", "curves", "seconds",
    )  # fmt: skip
    joint = document.get("ensemble") or {}
    told = ", ".join(f"{split} {score:.1f}" for split, own in joint.items() for score in own.values())
    pairs: list[tuple[str, Any]] = [("retrieved", sources), *([("ensemble", told)] if told else [])]
    pairs += [(name, document.get(name)) for name in names]
    says = [document["verdict"], *([document["speed"]["sentence"]] if document["speed"] else [])]
    says += [document["worth"]] if document["worth"] else []
    return Group(table(columns, rows, numbers=columns[1:]), "", facts(pairs), "", *says)


def _source(one: dict[str, Any]) -> str:
    """The name of a source with its loss or similarity."""
    if "loss" in one:
        return f"{one['name']} (loss {one['loss']:.3f})"
    return f"{one['name']} ({one['similarity']:.3f})"
