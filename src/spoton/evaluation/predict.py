"""Answers for new texts from a tuned prompt: a label with probabilities, or generated text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoton.errors import DataError
from spoton.evaluation.calibration import calibrated
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.score import (
    Watch,
    generate_texts,
    input_limit,
    label_log_likelihoods,
    label_score_of,
)
from spoton.events import OnEvent, silent
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.cells import plain_rows
from spoton.tasks.example import Example
from spoton.tasks.template import compile_template, render, template_columns

# What templates of the catalog see beside a row's own columns (`spoton.tasks.catalog.TaskInfo.doc_to_text`). They are
# the same for every row, so that an answer does not depend on where in the list its row stands.
_CATALOG_COLUMNS = {"number": 0, "file": ""}


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        row: Its number among the rows that were given, from 1 on.
        input: What the model read, template filled in; empty where the row was.
        answer: The most likely label, or the generated text; None where the row was empty.
        probabilities: Of every label, summing to 1; None where the text was generated or the row empty.
    """

    row: int
    input: str
    answer: str | None
    probabilities: dict[str, float] | None


def predict(
    model: FrozenModel,
    prompt: SoftPrompt,
    rows: Sequence[str | Mapping[str, Any]],
    *,
    max_tokens: int = 32,
    calibrate: bool = True,
    on_message: Callable[[str], None] | None = None,
    on_event: OnEvent = silent,
) -> list[Prediction]:
    """Answers ``rows`` with a tuned prompt.

    Args:
        model: The model the prompt was tuned for.
        prompt: The tuned prompt; its card's template makes inputs of rows, its labels are the possible
            answers.
        rows: A text each, or a mapping of column names to values where the template has several columns. The columns
            `number` and `file`, which the catalog adds to the rows of bundled tasks, need not be given.
        max_tokens: The longest generated answer, where there are no labels.
        calibrate: Whether the card's calibration of label scores is applied, if it has one.
        on_message: Told how many inputs lost their middle, and how many rows are empty, if any.
        on_event: Watches the progress.

    Returns:
        One prediction a row, in order; that of an empty row has no answer.

    Raises:
        PromptError: The prompt belongs to another model.
        DataError: A row lacks a column, or is a plain text though the template has several columns.

    Example:
        >>> predict(model, prompt, ["A joy from start to end."])[0].answer  # doctest: +SKIP
        'positive'
    """
    prompt.require_model(model.fingerprints, model.name)
    bundled = prompt.card.source.startswith("bundled:")
    filled = inputs_of(prompt.card.template, rows, _CATALOG_COLUMNS if bundled else {})
    numbers = [number for number, text in enumerate(filled) if text is not None]
    found = [Prediction(number, "", None, None) for number in range(1, len(filled) + 1)]
    if on_message and len(numbers) < len(filled):
        first = next(number for number, text in enumerate(filled, start=1) if text is None)
        on_message(
            f"{len(filled) - len(numbers)} of {len(filled)} rows are empty (the first: row {first}) and get no answer."
        )
    if not numbers:
        return found
    inputs = [text for text in filled if text is not None]
    labels = prompt.card.labels
    encoded = encode(
        model, [Example(text, "") for text in inputs], end=needs_end(model, labels), prompt_length=prompt.length,
        max_input_tokens=input_limit(prompt.card), labels=labels,
    )  # fmt: skip
    if encoded.truncated and on_message:
        room = max(map(len, encoded.inputs))
        on_message(
            f"{encoded.truncated} of {len(inputs)} inputs are longer than {room} tokens and lose their middle."
        )
    watch = Watch(on_event, "answering", len(inputs))
    if labels is None:
        texts = generate_texts(model, prompt.value, encoded, max_tokens, watch)
        for number, text, answer in zip(numbers, inputs, texts, strict=True):
            found[number] = Prediction(number + 1, text, answer, None)
        return found
    scores = label_log_likelihoods(model, prompt.value, encoded, labels, watch, label_score_of(prompt.card))
    chances = calibrated(scores, prompt.card.calibration if calibrate else None).softmax(dim=1)
    for number, text, row in zip(numbers, inputs, chances, strict=True):
        by_label = dict(zip(labels, row.tolist(), strict=True))
        found[number] = Prediction(number + 1, text, labels[int(row.argmax())], by_label)
    return found


def fill(
    template: str, rows: Sequence[str | Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> list[str]:
    """`inputs_of` where every row has to be answered.

    Raises:
        DataError: A row is empty, or does not fit the template.
    """
    inputs = inputs_of(template, rows, given)
    if None in inputs:
        raise DataError(f"Text {inputs.index(None) + 1} is empty. Remove it, or give a text.")
    return [text for text in inputs if text is not None]


def inputs_of(
    template: str, rows: Sequence[str | Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> list[str | None]:
    """Inputs from rows by a card's template; without a template a text is the input itself. None for an empty row.

    Args:
        template: Of the card.
        rows: Texts or columns.
        given: Columns that a row need not bring, with their values.

    Raises:
        DataError: A row does not fit the template.
    """
    given = given or {}
    columns = [name for name in template_columns(template) if name not in given] if template else []
    compiled = compile_template(template) if template else None
    inputs: list[str | None] = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            if len(columns) > 1:
                raise DataError(
                    f"Text {number} is one text, but this prompt was tuned on several columns: {', '.join(columns)}. "
                    'Give JSON objects, such as {"' + columns[0] + '": "...", ...}.'
                )
            row = {columns[0]: row} if columns else {"text": row}
        (plain,) = plain_rows([row])  # as when it was tuned
        cells = {name: "" if value is None else value for name, value in plain.items()}
        # A row is empty if the columns that are read are; a row without them is refused by its template.
        read = [cells[name] for name in columns if name in cells] or list(cells.values())
        if not any(str(value).strip() for value in read):
            inputs.append(None)
            continue
        inputs.append(
            render(compiled, {**given, **cells})
            if compiled is not None
            else str(cells.get("text", "")).strip()
        )
    return inputs
