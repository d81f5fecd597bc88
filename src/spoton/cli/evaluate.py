"""`spoton evaluate`: how good a prompt is on a task."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from spoton.cli.command import command
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Evaluation, Json, Library, ModelOptions, PromptSpec, TaskOptions
from spoton.cli.output import emit, facts
from spoton.cli.progress import live_progress

app = typer.Typer()


@command(
    app,
    "spoton evaluate reviews.safetensors reviews.csv --input text --target label",
    "spoton evaluate movie_sentiment news_sentiment --evaluation generate --json",
)
def evaluate(
    prompt: PromptSpec,
    task: TaskOptions,
    model: ModelOptions,
    split: Annotated[
        Literal["train", "validation", "test"],
        typer.Option(help="Which examples.", rich_help_panel="Evaluation"),
    ] = "test",
    evaluation: Evaluation = None,
    max_input_tokens: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Longer inputs lose their middle. Not given: as the prompt was tuned.",
            rich_help_panel="Evaluation",
        ),
    ] = None,
    library: Library = None,
    json: Json = False,
) -> None:
    """Score a prompt on a split of a task."""
    from spoton.tuning import evaluate as score
    from spoton.tuning.evaluation import input_limit

    found = find_prompt(prompt, library)
    asked = task.load()
    frozen = model.load(found)
    limit = max_input_tokens or input_limit(found.card)
    with live_progress() as on_event:
        scored = score(
            frozen, found, getattr(asked, split), asked, evaluation,
            max_input_tokens=limit, on_event=on_event,
        )  # fmt: skip
    document = {
        "prompt": prompt,
        "task": asked.name,
        "model": frozen.name,
        "split": split,
        "protocol": asked.protocol,
        "source": asked.source,
        "examples": scored.n,
        "evaluation": scored.mode,
        "metric": scored.metric,
        "scores": scored.scores,
        "truncated": scored.truncated,
        "max_input_tokens": limit,
    }
    pairs = [(name, value) for name, value in document.items() if name not in ("scores", "prompt")]
    emit(document, facts([*scored.scores.items(), *pairs]), as_json=json)
