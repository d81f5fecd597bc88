"""`spoton evaluate`: how good a prompt is on a task, or the model alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import typer

from spoton.cli.command import command
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Evaluation, Json, Library, ModelOptions, TaskOptions
from spoton.cli.output import emit, facts
from spoton.cli.progress import live_progress

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class ScoredOn(TaskOptions):
    """A task behind an optional prompt; alone it stands in the prompt's place."""

    data: Annotated[str, typer.Argument(metavar="DATA|TASK", help="Data or task, as for `spoton tune`.")] = ""


@command(
    app,
    "spoton evaluate reviews.safetensors reviews.csv --input text --target label",
    "spoton evaluate movie_sentiment news_sentiment --evaluation generate --json",
    "spoton evaluate news_sentiment --model tuned-model",
)
def evaluate(
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="[PROMPT]", help="A prompt file, or a name in a library. Not given: the model alone."
        ),
    ],
    task: ScoredOn,
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
    """Score a prompt, or the model without one, on a split of a task."""
    from spoton.errors import DataError
    from spoton.evaluation import evaluate as score
    from spoton.evaluation.encoding import MAX_INPUT_TOKENS
    from spoton.evaluation.intervals import score_intervals
    from spoton.evaluation.score import input_limit

    found = find_prompt(prompt, library) if task.data else None
    if found is None and prompt.endswith(".safetensors"):
        raise DataError(
            f"{prompt} is a prompt. Give the data to score it on, too: spoton evaluate {prompt} DATA"
        )
    asked = (task if found else replace(task, data=prompt)).load(model, found)
    frozen = model.load(found)
    limit = max_input_tokens or (input_limit(found.card) if found else MAX_INPUT_TOKENS)
    examples = getattr(asked, split)
    with live_progress() as on_event:
        scored = score(
            frozen, found, examples, asked, evaluation,
            max_input_tokens=limit, on_event=on_event,
        )  # fmt: skip
    intervals = score_intervals(asked.metrics, scored.predictions, examples, asked.labels)
    document = {
        "prompt": prompt if found else None,
        "task": asked.name,
        "form": asked.form,
        "model": frozen.name,
        "split": split,
        "protocol": asked.protocol,
        "source": asked.source,
        "examples": scored.n,
        "evaluation": scored.mode,
        "metric": scored.metric,
        "scores": scored.scores,
        "intervals": {name: one.to_json() for name, one in intervals.items()},
        "truncated": scored.truncated,
        "max_input_tokens": limit,
    }
    scores = [(name, f"{score:.1f}  ({intervals[name].text()})") for name, score in scored.scores.items()]
    pairs = [
        (name, value) for name, value in document.items() if name not in ("scores", "intervals", "prompt")
    ]
    emit(document, facts([*scores, *pairs]), as_json=json)
