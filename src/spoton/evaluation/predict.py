"""Answers for new texts from a tuned prompt: a label with probabilities, or generated text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoton.errors import DataError
from spoton.evaluation.calibration import calibrated
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.score import generate_texts, input_limit, label_log_likelihoods, label_score_of
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.example import Example
from spoton.tasks.template import compile_template, render, template_columns

# What templates of the catalog see beside a row's own columns (`spoton.tasks.catalog.TaskInfo.doc_to_text`). They are
# the same for every row, so that an answer does not depend on where in the list its row stands.
_CATALOG_COLUMNS = {"number": 0, "file": ""}


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        input: What the model read, template filled in.
        answer: The most likely label, or the generated text.
        probabilities: Of every label, summing to 1; None where the text was generated.
    """

    input: str
    answer: str
    probabilities: dict[str, float] | None


def predict(
    model: FrozenModel,
    prompt: SoftPrompt,
    rows: Sequence[str | Mapping[str, Any]],
    *,
    max_tokens: int = 32,
    calibrate: bool = True,
    on_message: Callable[[str], None] | None = None,
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
        on_message: Told how many inputs lost their middle, if any did.

    Raises:
        PromptError: The prompt belongs to another model.
        DataError: A row lacks a column, is empty, or is a plain text though the template has several columns.

    Example:
        >>> predict(model, prompt, ["A joy from start to end."])[0].answer  # doctest: +SKIP
        'positive'
    """
    prompt.require_model(model.fingerprint, model.name)
    if not rows:
        return []
    bundled = prompt.card.source.startswith("bundled:")
    inputs = fill(prompt.card.template, rows, _CATALOG_COLUMNS if bundled else {})
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
    if labels is None:
        texts = generate_texts(model, prompt.value, encoded, max_tokens)
        return [Prediction(text, answer, None) for text, answer in zip(inputs, texts, strict=True)]
    scores = label_log_likelihoods(
        model, prompt.value, encoded, labels, label_score=label_score_of(prompt.card)
    )
    chances = calibrated(scores, prompt.card.calibration if calibrate else None).softmax(dim=1)
    return [
        Prediction(text, labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)))
        for text, row in zip(inputs, chances, strict=True)
    ]


def fill(
    template: str, rows: Sequence[str | Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> list[str]:
    """Inputs from rows by a card's template; without a template a text is the input itself.

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
    inputs = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            if len(columns) > 1:
                raise DataError(
                    f"Text {number} is one text, but this prompt was tuned on several columns: {', '.join(columns)}. "
                    'Give JSON objects, such as {"' + columns[0] + '": "...", ...}.'
                )
            row = {columns[0]: row} if columns else {"text": row}
        row = {name: "" if value is None else value for name, value in row.items()}  # as when it was tuned
        text = (
            render(compiled, {**given, **row}) if compiled is not None else str(row.get("text", "")).strip()
        )
        if not any(str(value).strip() for value in row.values()):
            raise DataError(f"Text {number} is empty. Remove it, or give a text.")
        inputs.append(text)
    return inputs
