"""Answers for new texts from a tuned prompt: a label with probabilities, or generated text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spoton.evaluation.encoding import Encoded, encode, needs_end
from spoton.evaluation.score import generate_texts, input_limit, label_log_likelihoods
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.example import Example
from spoton.tasks.fill import fill, given_columns


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
    inputs = fill(prompt.card.template, rows, given_columns(prompt.card.source))
    encoded = encode_inputs(model, prompt, inputs)
    if encoded.truncated and on_message:
        room = max(map(len, encoded.inputs))
        on_message(
            f"{encoded.truncated} of {len(inputs)} inputs are longer than {room} tokens and lose their middle."
        )
    labels = prompt.card.labels
    if labels is None:
        texts = generate_texts(model, prompt.value, encoded, max_tokens)
        return [Prediction(text, answer, None) for text, answer in zip(inputs, texts, strict=True)]
    scores = label_log_likelihoods(model, prompt.value, encoded, labels)
    return [
        Prediction(text, *answer)
        for text, answer in zip(inputs, answers_from_scores(prompt.card, scores), strict=True)
    ]


def encode_inputs(model: FrozenModel, prompt: SoftPrompt, inputs: Sequence[str]) -> Encoded:
    """New inputs as token ids, shortened as when the prompt was tuned.

    Raises:
        DataError: An input is empty, or leaves no room for a label.
    """
    labels = prompt.card.labels
    return encode(
        model, [Example(text, "") for text in inputs], end=needs_end(model, labels), prompt_length=prompt.length,
        max_input_tokens=input_limit(prompt.card), labels=labels,
    )  # fmt: skip


def answers_from_scores(card: Card, scores: Tensor) -> list[tuple[str, dict[str, float]]]:
    """The answer for each row, and the probability of every label: the one place where scores become answers.

    Args:
        card: Of the prompt; its labels, in their order.
        scores: ``[N, C]`` log-likelihood of each label behind each input, in nats.
    """
    labels = card.labels or []
    return [
        (labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)))
        for row in scores.softmax(dim=1)
    ]
