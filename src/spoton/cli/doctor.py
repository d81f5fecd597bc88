"""`spoton doctor`: why is nothing learned?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Group, RenderableType

from spoton.cli.command import command
from spoton.cli.data_options import TaskOptions
from spoton.cli.options import Json, Library, ModelOptions
from spoton.cli.output import emit, facts, table
from spoton.cli.progress import live_progress
from spoton.cli.recipe_options import RecipeOptions

if TYPE_CHECKING:
    from spoton.tuning import Diagnosis

app = typer.Typer()


@command(
    app,
    "spoton doctor reviews.csv --input text --target label",
    "spoton doctor news_sentiment --learning-rate 0.3 --json",
)
def doctor(
    task: TaskOptions,
    model: ModelOptions,
    recipe: RecipeOptions,
    library: Library = None,
    json: Json = False,
) -> None:
    """Examine a task: class balance, label tokens, truncation, time, and whether one batch can be overfitted."""
    from spoton.tuning import diagnose

    asked = task.load(model)
    chosen = recipe.recipe(library)
    frozen = model.load()
    chosen = recipe.budgeted(chosen, frozen, asked)
    with live_progress() as on_event:
        found = diagnose(frozen, asked, chosen, on_event=on_event)
    emit(found.to_json(), _report(found), as_json=json)


def _report(found: Diagnosis) -> RenderableType:
    pairs = [
        ("task", found.task),
        ("splits", _joined(found.splits)),
        ("targets", _targets(found)),
        ("label tokens", _joined({label: "|".join(tokens) for label, tokens in found.label_tokens.items()})),
        ("input tokens", _joined(found.input_tokens)),
        ("truncated", found.truncated),
        ("time", _time(found)),
    ]
    rates = [(f"{rate['learning_rate']:g}", rate["before"], rate["after"]) for rate in found.rates]
    columns = ("learning rate", "loss before", "loss after")
    findings = [f"- {finding}" for finding in found.findings] or ["Nothing unusual was found."]
    return Group(facts(pairs), "", table(columns, rates, numbers=columns), "", *findings)


def _targets(found: Diagnosis) -> str:
    if not found.label_tokens and found.splits["train"] * max(found.balance.values()) < 1.5:
        return "open texts, all different"
    return _joined({target: f"{share:.0%}" for target, share in found.balance.items()})


def _time(found: Diagnosis) -> str:
    minutes = found.steps * found.step_seconds / 60
    told = f"about {minutes:.0f} minutes" if minutes >= 1 else "less than a minute"
    run = f"up to {found.steps} steps take {told}, evaluations apart"
    return f"{found.step_seconds:.2g} s a step: {run}; `adapt` has two such runs"


def _joined(values: dict[str, object] | dict[str, int] | dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
