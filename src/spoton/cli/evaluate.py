"""`spoton evaluate`: scores a prompt, or the model alone, on a task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType

from spoton.cli.command import command
from spoton.cli.compared import Answers, compared_table, comparison, told
from spoton.cli.data_options import TaskOptions, is_path, note_unknown
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Evaluation, Json, Library, ModelOptions
from spoton.cli.output import emit, facts, note, table
from spoton.cli.progress import live_progress
from spoton.cli.tables import require_table, write_table

if TYPE_CHECKING:
    from spoton.evaluation import Evaluation as Evaluated
    from spoton.evaluation.intervals import Interval
    from spoton.prompts import Card, SoftPrompt
    from spoton.tasks import Example, Task

app = typer.Typer()

OPEN_TOKENS = 32
"""Longest answer to an open target if no training rows show how long targets are, as in `predict`."""
_PANEL = "Evaluation"


@command(
    app,
    "spoton evaluate reviews.safetensors reviews.csv",
    "spoton evaluate reviews.safetensors new.csv --split all --predictions answers.csv",
    "spoton evaluate movie_sentiment news_sentiment --evaluation generate --baseline --json",
    "spoton evaluate old.safetensors new.safetensors reviews.csv",
    "spoton evaluate news_sentiment --model tuned-model",
)
def evaluate(
    *,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="A prompt file, or a name in a library. Several: the others are compared with the first, row by row. "
            "Default: the model alone.",
        ),
    ] = None,
    task: TaskOptions,
    model: ModelOptions,
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(
            help="Which examples; all: every row, for a file that was not used in tuning.",
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
            help="Longer inputs lose their middle. Default: as the prompt was tuned.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest generated answer to an open target. Default: the longest training target.",
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
        typer.Option("--overwrite", help="Replace --predictions if it exists.", rich_help_panel=_PANEL),
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

    A data file is read like the file that the prompt was tuned on: template, target column and labels come from the
    prompt's card, unless options say otherwise.
    """
    from spoton.errors import DataError
    from spoton.evaluation import evaluate as score
    from spoton.evaluation.encoding import MAX_INPUT_TOKENS
    from spoton.evaluation.intervals import score_intervals
    from spoton.evaluation.score import input_limit, mode_of

    if task.data.endswith(".safetensors"):
        raise DataError(
            f"{task.data} is a prompt. Give the data to score it on, too: spoton evaluate {task.data} DATA"
        )
    found = {name: find_prompt(name, library) for name in prompts or ()}
    if predictions is not None:
        inputs = (task.data, task.validation, task.test)
        require_table(predictions, overwrite=overwrite, inputs=inputs, folders=_data_folders(task))
    _require_same_reading(task, found)
    first = next(iter(found.values()), None)
    asked = _loaded(task, model, first, split)
    frozen = model.load(first)
    for prompt in found.values():  # before the first of them is scored, which takes minutes
        prompt.require_model(frozen.fingerprints, frozen.name)
    examples = _examples(asked, split)
    note_unknown(frozen, asked.labels)
    _note_other_splits(asked, found)
    if calibration and mode_of(asked, evaluation) == "rank":
        _note_unused_calibration(asked, found)

    def scored_by(prompt: SoftPrompt | None) -> tuple[int, Evaluated]:
        limit = max_input_tokens or (input_limit(prompt.card) if prompt else MAX_INPUT_TOKENS)
        with live_progress() as on_event:
            return limit, score(
                frozen, prompt, examples, asked, evaluation, max_input_tokens=limit, calibrate=calibration,
                max_tokens=max_tokens or (OPEN_TOKENS if split == "all" else None), on_event=on_event,
            )  # fmt: skip

    name = next(iter(found), None)
    limit, scored = scored_by(first)
    intervals = score_intervals(asked.metrics, scored.predictions, examples, asked.labels)
    others = {other: scored_by(prompt)[1].predictions for other, prompt in found.items() if other != name}
    document = _document(scored, examples, asked) | {
        "prompt": name, "model": frozen.name, "split": split, "max_input_tokens": limit,
        "intervals": {metric: one.to_json() for metric, one in intervals.items()},
        "baseline": _classical(asked, split, scored.predictions) if baseline else None,
        "compared": [
            comparison((str(name), other), scored.predictions, answers, examples, asked)
            for other, answers in others.items()
        ],
        "predictions": None if predictions is None else str(predictions),
    }  # fmt: skip
    if predictions is not None:
        write_table(
            predictions, _answers(_row_names(asked, split, examples), examples, scored.predictions, others)
        )
    emit(document, _report(document, intervals), as_json=json)


def _data_folders(task: TaskOptions) -> list[Path]:
    """Returns the folders whose files are read as the rows of a task."""
    from spoton.tasks.sources import DATA_DIR

    info, root = task.described(), task.data_dir or os.environ.get(DATA_DIR)
    if info is None:
        return [Path(task.data)] if is_path(task.data) and Path(task.data).is_dir() else []
    return [Path(root) / name for name in (info.name, info.folder or info.name)] if root else []


def _document(scored: Evaluated, examples: Sequence[Example], task: Task) -> dict[str, Any]:
    """Returns the task and its scores as plain values."""
    raw = scored.uncalibrated
    return {
        "task": task.name, "form": task.form, "protocol": task.protocol, "source": task.source, "examples": scored.n,
        "evaluation": scored.mode, "metric": scored.metric, "scores": scored.scores,
        "calibration_error": scored.calibration_error, "truncated": scored.truncated,
        "uncalibrated": None
        if raw is None
        else {"scores": raw.scores, "calibration_error": raw.calibration_error},
        **_by_label(scored.predictions, examples, task),
    }  # fmt: skip


def _note_other_splits(task: Task, prompts: Mapping[str, SoftPrompt]) -> None:
    """Warns of prompts that were tuned on the same file in other splits: they may know the rows they are scored on."""
    from spoton.transfer.sources import is_of_file

    for name, prompt in prompts.items():
        card = prompt.card
        if is_of_file(task.source) and card.source == task.source and card.data_hash != task.data_hash():
            note(
                f"{name} was tuned on this file in other splits, so it may know rows that it is scored on now. Give "
                "the options of splits and sizes that it was tuned with, or rows of another file."
            )


def _note_unused_calibration(task: Task, prompts: Mapping[str, SoftPrompt]) -> None:
    """Names the prompts whose calibration is for other labels, and so is left out of their scores."""
    from spoton.evaluation.ensemble import calibrations_of

    for name, prompt in prompts.items():
        own = sorted(prompt.card.labels or ())
        fitted = prompt.card.calibration or any(calibrations_of(prompt.card))
        if fitted and own != sorted(task.labels or ()):
            note(
                f"The calibration of {name} is for the labels {', '.join(own)} and not used: {task.name} has others."
            )


def _require_same_reading(task: TaskOptions, prompts: Mapping[str, SoftPrompt]) -> None:
    """Refuses prompts that read the same data in different ways, since they would answer different inputs.

    Raises:
        DataError: Two prompts read the data differently; names both and what differs.
    """
    from spoton.errors import DataError

    readings = {name: _reading(task, prompt.card) for name, prompt in prompts.items()}
    first = next(iter(readings), "")
    for name, reading in readings.items():
        for what in sorted({*readings[first], *reading}):
            here, there = readings[first].get(what), reading.get(what)
            if here != there:
                raise DataError(
                    f"{first} reads {task.data} with the {what} {here!r}, {name} with {there!r}, so their answers are "
                    f"not to the same inputs. Give --{what} for both, or evaluate them one at a time."
                )


def _reading(task: TaskOptions, card: Card) -> dict[str, Any]:
    """Returns how a prompt of this card reads the data, for options that are not given."""
    from spoton.evaluation.form import form_of, is_chat
    from spoton.tasks.load import has_forms

    reading = _known(task, card)
    reading.pop("metrics", None)  # those of the first are computed for all
    if isinstance(reading.get("labels"), tuple):
        reading["labels"] = sorted(reading["labels"])
    if task.form == "auto" and has_forms(task.data, task_files=task.task_file or ()):
        reading["form"] = form_of(card)
    return reading | ({} if task.chat else {"chat": is_chat(card)})


def _loaded(task: TaskOptions, model: ModelOptions, prompt: SoftPrompt | None, split: str) -> Task:
    """Returns the task; a file is read like the file that the prompt was tuned on."""
    from spoton.tasks import DataSpec

    if not is_path(task.data) or task.described() is not None:
        return task.load(model, prompt)
    known: dict[str, Any] = {"hold_out": False} if split == "all" else {}
    if prompt is not None:
        known |= _known(task, prompt.card)
    return task.load(model, prompt, DataSpec.of(None, known))


def _known(task: TaskOptions, card: Card) -> dict[str, Any]:
    """Returns how the card of a prompt says to read a file, for options that are not given."""
    from spoton.tasks.fill import given_columns
    from spoton.tasks.targets import metrics_with
    from spoton.tasks.template import template_columns

    if not is_path(task.data) or task.described() is not None:
        return {}
    if not card.template or given_columns(card.source).keys() & set(template_columns(card.template)):
        return {}  # the template of a bundled task reads a column that no file has
    known: dict[str, Any] = {}
    asked = task.spec()
    if asked.input is None and asked.template is None:
        known |= _input_of(card)
    if asked.target is None and card.target:
        known["target"] = card.target
    if asked.labels is None:
        known["labels"] = "none" if card.labels is None else tuple(card.labels)
    if asked.metrics is None and card.metric and card.metric != "mean":
        known["metrics"] = metrics_with(card.metric, card.labels)
    return known


def _input_of(card: Card) -> dict[str, str]:
    """Returns the template of a card; for a chat, whose template already has the turns, the one inside them."""
    from spoton.evaluation.form import is_chat
    from spoton.tasks.chat import template_in_chat

    template = template_in_chat(card.template) if is_chat(card) else card.template
    return {} if template is None else {"template": template}


def _examples(task: Task, split: str) -> Sequence[Example]:
    """Returns the examples of a split, or of all splits, each example once."""
    if split != "all":
        chosen: Sequence[Example] = getattr(task, split)
        return chosen
    held_out = task.validation if task.protocol == "paper" else (*task.validation, *task.test)
    return (*task.train, *held_out)


def _by_label(predictions: Sequence[str | None], examples: Sequence[Example], task: Task) -> dict[str, Any]:
    from spoton.evaluation.by_label import by_label, confusion

    if task.labels is None:
        return {"by_label": None, "confusion": None}
    targets = [example.target for example in examples]
    return {
        "by_label": by_label(predictions, targets, task.labels),
        "confusion": confusion(predictions, targets, task.labels),
    }


def _classical(task: Task, split: str, answers: Answers) -> dict[str, Any] | None:
    """Returns scores of TF-IDF with logistic regression on the same examples, and how far the answers are ahead."""
    from spoton.errors import DataError
    from spoton.evaluation.baseline import classical

    if split in ("train", "all"):
        note(f"No baseline: it is fitted on the training rows, which --split {split} scores.")
        return None
    try:
        fitted = classical(task, splits=[split])
    except DataError as error:
        note(f"No baseline: {error}")
        return None
    against = comparison(("TF-IDF", "prompt"), fitted.predictions[split], answers, getattr(task, split), task)
    return fitted.to_json() | {name: against[name] for name in ("differences", "mcnemar_p")}


def _row_names(task: Task, split: str, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Returns the columns that name the row of each example: its number in the file, else in the split."""
    rows = [example.row for example in examples]
    if not task.source.startswith(("file:", "hub:")) or not all(rows):
        return [{"row": number} for number in range(1, len(rows) + 1)]
    if split != "all" or not (task.validation or task.test):
        return [{"row": row} for row in rows]
    # Each split has a file, or more, of its own, whose rows are counted from 1.
    splits = [name for name in ("train", "validation", "test") for _ in getattr(task, name)]
    return [{"split": name, "row": row} for name, row in zip(splits, rows, strict=True)]


def _answers(
    rows: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    predictions: Answers,
    others: Mapping[str, Answers],
) -> list[dict[str, Any]]:
    return [
        {**row, "input": example.input, "target": example.target, "answer": predictions[place]}
        | {f"answer of {name}": answers[place] for name, answers in others.items()}
        for place, (row, example) in enumerate(zip(rows, examples, strict=True))
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
        words = ", ".join(f"{name} {score:.1f}" for name, score in found["scores"][split].items())
        kept = f"{words}  ({found['rows']} training rows, C {found['c']:g})"
        gain = told(found["differences"][document["metric"]])
        parts.append(facts([("TF-IDF + logistic regression", kept), ("difference to it", gain)]))
    if document["compared"]:
        parts += ["", compared_table(document["compared"])]
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
    """Returns the most frequent wrong answer for a label, and how often it was given."""
    names = [*confusion["labels"], "no label"]
    wrong = {names[i]: n for i, n in enumerate(confusion["counts"][place]) if i != place and n}
    worst = max(wrong, key=lambda name: wrong[name], default=None)
    return None if worst is None else f"{worst} ({wrong[worst]})"
