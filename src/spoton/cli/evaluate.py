"""`spoton evaluate`: how good a prompt is on a task, or the model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType

from spoton.cli.command import command
from spoton.cli.data_options import TaskOptions, is_path, note_unknown
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Evaluation, Json, Library, ModelOptions
from spoton.cli.output import emit, facts, note, table
from spoton.cli.progress import live_progress
from spoton.cli.tables import require_table, write_table

if TYPE_CHECKING:
    from spoton.evaluation.intervals import Interval
    from spoton.evaluation.score import Evaluation as Scored
    from spoton.prompts import Card, SoftPrompt
    from spoton.tasks import Example, Task

app = typer.Typer()

OPEN_TOKENS = 32
"""Longest answer to an open target where no training rows say how long they are, as in `predict`."""
_PANEL = "Evaluation"


@dataclass(frozen=True, kw_only=True)
class ScoredOn(TaskOptions):
    """A task behind an optional prompt; alone it stands in the prompt's place."""

    data: Annotated[str, typer.Argument(metavar="DATA|TASK", help="Data or task, as for `spoton tune`.")] = ""


@command(
    app,
    "spoton evaluate reviews.safetensors reviews.csv",
    "spoton evaluate reviews.safetensors new.csv --split all --predictions answers.csv",
    "spoton evaluate movie_sentiment news_sentiment --evaluation generate --baseline --json",
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
        Literal["train", "validation", "test", "all"],
        typer.Option(
            help="Which examples; all: every row, for a file that nothing was tuned on.",
            rich_help_panel=_PANEL,
        ),
    ] = "test",
    evaluation: Evaluation = None,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration", help="Use the calibration of label scores that the prompt has."
        ),
    ] = True,
    max_input_tokens: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Longer inputs lose their middle. Not given: as the prompt was tuned.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest generated answer to an open target. Not given: the longest training target.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write every example with its target and answer to this CSV, TSV or JSONL file.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace --predictions if it is there.", rich_help_panel=_PANEL),
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Also score TF-IDF and logistic regression, fitted on the training split.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    library: Library = None,
    json: Json = False,
) -> None:
    """Score a prompt, or the model without one, on a split of a task.

    A data file is read as the prompt's was: template, target column and labels are those of its card, unless options
    say otherwise.
    """
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
    if predictions is not None:
        require_table(predictions, overwrite=overwrite)
    asked = _loaded(task if found else replace(task, data=prompt), model, found, split)
    frozen = model.load(found)
    limit = max_input_tokens or (input_limit(found.card) if found else MAX_INPUT_TOKENS)
    examples = _examples(asked, split)
    note_unknown(frozen, asked.labels)
    with live_progress() as on_event:
        scored = score(
            frozen, found, examples, asked, evaluation, max_input_tokens=limit, calibrate=calibration,
            max_tokens=max_tokens or (OPEN_TOKENS if split == "all" else None), on_event=on_event,
        )  # fmt: skip
    intervals = score_intervals(asked.metrics, scored.predictions, examples, asked.labels)
    document = {
        "prompt": prompt if found else None, "task": asked.name, "form": asked.form, "model": frozen.name,
        "split": split, "protocol": asked.protocol, "source": asked.source, **_scores(scored),
        "intervals": {name: one.to_json() for name, one in intervals.items()},
        "truncated": scored.truncated, "max_input_tokens": limit,
        **_by_label(scored.predictions, examples, asked),
        "baseline": _classical(asked, split) if baseline else None,
        "predictions": None if predictions is None else str(predictions),
    }  # fmt: skip
    if predictions is not None:
        write_table(predictions, _answers(examples, scored.predictions))
    emit(document, _report(document, intervals), as_json=json)


def _loaded(task: TaskOptions, model: ModelOptions, prompt: SoftPrompt | None, split: str) -> Task:
    """The task, a file read as the prompt's own was."""
    from spoton.tasks import DataSpec

    if not is_path(task.data) or task.described() is not None:
        return task.load(model, prompt)
    known: dict[str, Any] = {"hold_out": False} if split == "all" else {}
    card = None if prompt is None else prompt.card
    asked = task.spec()
    if card is not None and card.template and not card.source.startswith("bundled:"):
        if asked.input is None and asked.template is None:
            known |= _input_of(card)
        if asked.target is None and card.target:
            known["target"] = card.target
        if asked.labels is None:
            known["labels"] = "none" if card.labels is None else tuple(card.labels)
        if asked.metrics is None and card.metric and card.metric != "mean":
            others = ("accuracy", "macro_f1") if card.labels is not None else ()
            known["metrics"] = tuple(dict.fromkeys((card.metric, *others)))
    return task.load(model, prompt, DataSpec.of(None, known))


def _input_of(card: Card) -> dict[str, str]:
    """The template of a card; of a chat, whose template has the turns in it already, the one column it reads."""
    from spoton.evaluation.form import is_chat
    from spoton.tasks.template import template_columns

    if not is_chat(card):
        return {"template": card.template}
    columns = template_columns(card.template)
    return {"input": columns[0]} if len(columns) == 1 else {}


def _examples(task: Task, split: str) -> Sequence[Example]:
    """The examples of a split, or of all of them without those that stand in two."""
    if split != "all":
        chosen: tuple[Example, ...] = getattr(task, split)
        return chosen
    held_out = task.validation if task.protocol == "paper" else (*task.validation, *task.test)
    return (*task.train, *held_out)


def _scores(scored: Scored) -> dict[str, Any]:
    raw = scored.uncalibrated
    return {
        "examples": scored.n, "evaluation": scored.mode, "metric": scored.metric, "scores": scored.scores,
        "calibration_error": scored.calibration_error,
        "uncalibrated": None if raw is None
        else {"scores": raw.scores, "calibration_error": raw.calibration_error},
    }  # fmt: skip


def _by_label(predictions: Sequence[str | None], examples: Sequence[Example], task: Task) -> dict[str, Any]:
    from spoton.evaluation.by_label import by_label, confusion

    if task.labels is None:
        return {"by_label": None, "confusion": None}
    targets = [example.target for example in examples]
    return {
        "by_label": by_label(predictions, targets, task.labels),
        "confusion": confusion(predictions, targets, task.labels),
    }


def _classical(task: Task, split: str) -> dict[str, Any] | None:
    """Scores of TF-IDF and logistic regression on the same examples, if the task allows for it."""
    from spoton.errors import DataError
    from spoton.evaluation.baseline import classical

    if split in ("train", "all"):
        note(f"No baseline: it is fitted on the training rows, which --split {split} scores.")
        return None
    try:
        return classical(task, splits=[split]).to_json()
    except DataError as error:
        note(f"No baseline: {error}")
        return None


def _answers(examples: Sequence[Example], predictions: Sequence[str | None]) -> list[dict[str, Any]]:
    return [
        {"row": row, "input": example.input, "target": example.target, "answer": answer}
        for row, (example, answer) in enumerate(zip(examples, predictions, strict=True), start=1)
    ]


def _report(document: dict[str, Any], intervals: dict[str, Interval]) -> RenderableType:
    split = document["split"]
    scores = [
        (name, f"{score:.1f}  ({intervals[name].text()})") for name, score in document["scores"].items()
    ]
    if document["uncalibrated"] is not None:
        raw = ", ".join(f"{name} {score:.1f}" for name, score in document["uncalibrated"]["scores"].items())
        scores.append(("without calibration", raw))
    shown = ("task", "model", "split", "protocol", "source", "examples", "evaluation", "metric", "truncated",
             "max_input_tokens")  # fmt: skip
    pairs = [(name, document[name]) for name in shown]
    parts: list[RenderableType] = [facts([*scores, *pairs])]
    if document["baseline"] is not None:
        found = document["baseline"]
        told = ", ".join(f"{name} {score:.1f}" for name, score in found["scores"][split].items())
        parts.append(
            facts(
                [
                    (
                        "TF-IDF + logistic regression",
                        f"{told}  ({found['rows']} training rows, C {found['c']:g})",
                    )
                ]
            )
        )
    if document["by_label"] is not None:
        columns = ("label", "precision", "recall", "f1", "examples", "most often taken for")
        rows = [
            (*(one[name] for name in columns[:5]), _taken_for(document["confusion"], place))
            for place, one in enumerate(document["by_label"])
        ]
        parts += ["", table(columns, rows, numbers=columns[1:5])]
    if document["predictions"] is not None:
        parts += ["", f"The answers are in {document['predictions']}"]
    return Group(*parts)


def _taken_for(confusion: dict[str, Any], place: int) -> str | None:
    """The wrong answer that a label gets most often, and how often."""
    names = [*confusion["labels"], "no label"]
    wrong = {names[i]: n for i, n in enumerate(confusion["counts"][place]) if i != place and n}
    worst = max(wrong, key=lambda name: wrong[name], default=None)
    return None if worst is None else f"{worst} ({wrong[worst]})"
