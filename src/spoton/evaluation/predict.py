"""Answers for new texts from a tuned prompt: a label with probabilities, or generated text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from spoton.errors import Interrupted
from spoton.evaluation.arguments import require_asked
from spoton.evaluation.calibration import calibrated
from spoton.evaluation.encoding import Encoded, encode, needs_end
from spoton.evaluation.ensemble import calibrations_of, pooled, voted
from spoton.evaluation.kept_answers import KeptAnswer, KeptAnswers
from spoton.evaluation.score import (
    Watch,
    generate_texts,
    input_limit,
    label_score_of,
    member_scores,
)
from spoton.events import OnEvent, silent
from spoton.files import sha256_of_text
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float
from spoton.tasks.example import Example
from spoton.tasks.fill import given_columns, inputs_of

PART = 512
"""Rows that are answered together; with `kept`, a kill loses as many at most."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        row: Its number among the given rows, from 1.
        input: The text that the model read, with the template filled in; empty if the row was.
        answer: The most likely label, or the generated text; None if the row was empty.
        probabilities: Probability of every label, summing to 1; None if the text was generated or the row empty.
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
    kept: Path | None = None,
    on_message: Callable[[str], None] | None = None,
    on_event: OnEvent = silent,
) -> list[Prediction]:
    """Answers `rows` with a tuned prompt.

    Args:
        model: The model the prompt was tuned for.
        prompt: The tuned prompt; its card's template makes inputs from rows, its labels are the possible
            answers.
        rows: One text each, or a mapping of column names to values if the template has several columns. The columns
            `number` and `file`, which the catalog adds to the rows of bundled tasks, are optional.
        max_tokens: Length of the longest generated answer, if there are no labels.
        calibrate: Whether the card's calibration of label scores is applied, if it has one.
        kept: File in which finished answers are kept, so that the same call goes on after a kill; the caller removes
            it. None: nothing is kept.
        on_message: Called with how many inputs lost their middle, and how many rows are empty, if any.
        on_event: Called with progress events.

    Returns:
        One prediction per row, in order; an empty row has no answer.

    Raises:
        PromptError: The prompt belongs to another model, or is not a prompt with its card.
        DataError: `rows` is not a list, or a row lacks a column or is a text though the template has several columns.
        Interrupted: Ctrl-C; the message says what is kept.

    Examples:
        >>> predict(model, prompt, ["A joy from start to end."])[0].answer  # doctest: +SKIP
        'positive'
    """
    require_asked(model, prompt, max_tokens)
    prompt.require_model(model.fingerprints, model.name)
    filled = inputs_of(prompt.card.template, rows, given_columns(prompt.card.source))
    numbers = [number for number, text in enumerate(filled) if text is not None]
    found = [Prediction(number, "", None, None) for number in range(1, len(filled) + 1)]
    if on_message and len(numbers) < len(filled):
        on_message(_of_empty_rows(filled))
    if not numbers:
        return found
    inputs = [text for text in filled if text is not None]
    encoded = encode_inputs(model, prompt, inputs, max_tokens)
    if encoded.truncated and on_message:
        on_message(_of_long_rows(encoded))
    answers = _answers(model, prompt, encoded, inputs, max_tokens, calibrate, kept, on_event)
    for number, text, (answer, chances) in zip(numbers, inputs, answers, strict=True):
        found[number] = Prediction(number + 1, text, answer, chances)
    return found


def _answers(
    model: FrozenModel,
    prompt: SoftPrompt,
    encoded: Encoded,
    inputs: Sequence[str],
    max_tokens: int,
    calibrate: bool,
    kept: Path | None,
    on_event: OnEvent,
) -> list[KeptAnswer]:
    """Returns the answer to each input, part by part; those in a file of kept answers are taken from there.

    Raises:
        Interrupted: Ctrl-C, with kept answers.
    """
    of = [
        prompt.content_hash(),
        prompt.card.model_dump_json(),
        str(model.dtype),
        str(max_tokens),
        str(calibrate),
    ]
    store = None if kept is None else KeptAnswers(kept, sha256_of_text([*of, *inputs]))
    answers = store.begin() if store else []
    members = len(prompt.values)
    watch = Watch(on_event, "answering", len(inputs) * members, done=len(answers) * members)
    try:
        for first in range(len(answers), len(inputs), PART):
            rows = range(first, min(first + PART, len(inputs)))
            part = _part(model, prompt, encoded.part(rows), max_tokens, calibrate, watch)
            answers += part
            if store:
                store.add(part)
    except KeyboardInterrupt as stop:
        if store is None or not answers:
            if store:
                store.path.unlink(missing_ok=True)
            raise
        raise Interrupted(
            f"Interrupted after {len(answers)} of {len(inputs)} rows. Their answers are kept in {store.path}; the same "
            "command goes on from there."
        ) from stop
    return answers


def _part(
    model: FrozenModel, prompt: SoftPrompt, encoded: Encoded, max_tokens: int, calibrate: bool, watch: Watch
) -> list[KeptAnswer]:
    labels = prompt.card.labels
    if labels is None:
        texts = [generate_texts(model, value, encoded, max_tokens, watch) for value in prompt.values]
        return [(text, None) for text in voted(texts)]
    scores = member_scores(model, prompt.values, encoded, labels, watch, label_score_of(prompt.card))
    return list(answers_from_scores(prompt.card, scores, calibrate=calibrate))


def _of_empty_rows(filled: Sequence[str | None]) -> str:
    empty = f"{filled.count(None)} of {len(filled)} rows are empty"
    return f"{empty} (the first: row {filled.index(None) + 1}) and get no answer."


def _of_long_rows(encoded: Encoded) -> str:
    room = max(map(len, encoded.inputs))
    return (
        f"{encoded.truncated} of {len(encoded)} inputs are longer than {room} tokens and lose their middle."
    )


def encode_inputs(model: FrozenModel, prompt: SoftPrompt, inputs: Sequence[str], max_tokens: int) -> Encoded:
    """Returns new inputs as token ids, shortened as when the prompt was tuned.

    Args:
        model: The model.
        prompt: The prompt.
        inputs: The inputs.
        max_tokens: Most tokens of an answer, for prompts without labels; inputs leave room for them.

    Raises:
        DataError: An input is empty, or there is no room for an answer.
    """
    labels = prompt.card.labels
    return encode(
        model, [Example(text, "") for text in inputs], end=needs_end(model, labels),
        prompt_length=max(map(len, prompt.values)), max_input_tokens=input_limit(prompt.card), labels=labels,
        generated=0 if labels else max_tokens,
    )  # fmt: skip


def answers_from_scores(
    card: Card, scores: Float[Tensor, "K N C"], *, calibrate: bool = True
) -> list[tuple[str, dict[str, float]]]:
    """Returns the answer for each row, and the probability of every label: the only place where scores become answers.

    Args:
        card: The prompt's card, with its labels in order.
        scores: `[K, N, C]` score of each label after each input, summed or averaged as the recipe says; K is 1, or
            the number of prompts of an ensemble.
        calibrate: Whether the card's calibration is applied, if it has one.
    """
    labels = card.labels or []
    if card.members:
        used = pooled(scores, calibrations_of(card, calibrate=calibrate))
    else:
        used = calibrated(scores[0], card.calibration if calibrate else None)
    return [
        (labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)))
        for row in used.softmax(dim=1)
    ]
