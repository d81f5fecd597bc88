"""Scoring a prompt on examples, by ``rank`` or by ``generate``; the mode is always named in the result.

``rank`` takes the label word with the highest log-likelihood, summed over its tokens: the label set is closed.
``generate`` decodes greedily and compares text, the way of the papers; with label words the text is cut to the length
of the longest one, and must then be, or begin with, a label as whole words; of several that fit the longest counts.
Nothing here changes a prompt.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spoton.errors import DataError
from spoton.evaluation.encoding import MAX_INPUT_TOKENS, Encoded, encode, needs_end
from spoton.events import OnEvent, Progress, silent
from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.metrics import compute
from spoton.tasks.task import Example, Task

Mode = Literal["rank", "generate"]

# Rows scored at once. Sorted by length, 32 short texts keep two cores busy; more only adds memory.
_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        mode: ``rank`` or ``generate``.
        metric: Name of the main metric.
        scores: Every metric of the task, 0 to 100.
        predictions: The predicted target of each example, in order; None where the text was no label.
        n: How many examples.
        truncated: How many inputs lost their middle.
        loss: ``rank``: mean negative log-probability of the right label among the labels, nats; else None.
    """

    mode: Mode
    metric: str
    scores: dict[str, float]
    predictions: list[str | None]
    n: int
    truncated: int
    loss: float | None = None

    @property
    def score(self) -> float:
        """The main metric."""
        return self.scores[self.metric]


def default_mode(task: Task) -> Mode:
    """``rank`` where the labels are a closed set, ``generate`` where any text may be right."""
    return "generate" if task.labels is None else "rank"


def input_limit(card: Card) -> int:
    """Tokens of the longest input that a prompt was tuned on; `MAX_INPUT_TOKENS` if the card has no recipe."""
    limit = card.recipe.get("max_input_tokens")
    return limit if isinstance(limit, int) else MAX_INPUT_TOKENS


def evaluate(
    model: FrozenModel,
    prompt: SoftPrompt | Tensor | None,
    examples: Sequence[Example],
    task: Task,
    mode: Mode | None = None,
    *,
    max_input_tokens: int | None = None,
    on_event: OnEvent = silent,
    phase: str = "evaluating",
) -> Evaluation:
    """Scores a prompt on examples of a task.

    Args:
        model: The frozen model.
        prompt: A prompt; or its bare matrix ``[P, D]``, of which nobody knows the model; or None for the bare model
            (zero-shot).
        examples: What to score on.
        task: Gives the labels and metrics.
        mode: ``rank`` or ``generate``; None: `default_mode`.
        max_input_tokens: Longer inputs lose their middle. None: as the prompt was tuned, else `MAX_INPUT_TOKENS`.
        on_event: Watches the progress.
        phase: What to call this in progress events.

    Raises:
        DataError: No examples, or ``rank`` on a task without a closed label set.
        PromptError: The prompt belongs to another model.
    """
    limit = MAX_INPUT_TOKENS
    if isinstance(prompt, SoftPrompt):
        prompt.require_model(model.fingerprint, model.name)
        limit, prompt = input_limit(prompt.card), prompt.value
    mode = mode or default_mode(task)
    if not examples:
        raise DataError(f"{task.name} has no examples in this split, so nothing can be evaluated.")
    if mode == "rank" and task.labels is None:
        raise DataError(
            f"{task.name} has open targets, so there are no labels to rank. Evaluate it by generate."
        )
    value = torch.zeros(0, model.dim) if prompt is None else prompt
    end = needs_end(model, task.labels)
    encoded = encode(
        model,
        examples,
        end=end,
        prompt_length=len(value),
        max_input_tokens=limit if max_input_tokens is None else max_input_tokens,
        labels=task.labels,
    )
    watch = _Watch(on_event, phase, len(examples))
    targets = [example.target for example in examples]
    loss = None
    if mode == "rank":
        labels = list(task.labels or ())
        scores = label_log_likelihoods(model, value, encoded, labels, watch)
        predictions: list[str | None] = [labels[int(best)] for best in scores.argmax(dim=1)]
        gold = torch.tensor([labels.index(target) for target in targets])
        loss = float(torch.nn.functional.cross_entropy(scores, gold))
    else:
        longest = max(len(model.encode_target(target, end=end)) for target in task.labels or targets)
        texts = generate_texts(model, value, encoded, longest, watch)
        predictions = [_as_label(text, task.labels) for text in texts] if task.labels else list(texts)
    found = compute(task.metrics, predictions, targets, task.labels, examples=examples)
    return Evaluation(mode, task.metric, found, predictions, len(examples), encoded.truncated, loss)


def label_log_likelihoods(
    model: FrozenModel, value: Tensor, encoded: Encoded, labels: Sequence[str], watch: _Watch | None = None
) -> Tensor:
    """``[N, C]`` log-likelihood of each label behind each input, summed over the label's tokens, in nats.

    Decoder-only models score labels without an end token, unless one label begins another.
    """
    ids = [model.encode_target(label, end=needs_end(model, labels)) for label in labels]
    with torch.no_grad():
        score = engine_for(model).scorer(value[None])
        found = torch.zeros(len(encoded), len(labels))
        for rows in _by_length(encoded.inputs):
            found[rows] = score(encoded.batch(rows), ids).float().cpu()
            if watch:
                watch.advance(len(rows))
    return found


def generate_texts(
    model: FrozenModel, value: Tensor, encoded: Encoded, max_tokens: int, watch: _Watch | None = None
) -> list[str]:
    """The greedy continuation of each input, at most ``max_tokens`` tokens, as text."""
    generate = engine_for(model).generator(value[None])
    texts = [""] * len(encoded)
    for rows in _by_length(encoded.inputs):
        tokens = generate(encoded.batch(rows), max_tokens)
        for row, ids in zip(rows, tokens, strict=True):
            texts[row] = model.decode(ids)
        if watch:
            watch.advance(len(rows))
    return texts


def _as_label(text: str, labels: Sequence[str]) -> str | None:
    """The label a generated text is, or begins with as whole words; the longest if several; None if there is none."""
    fitting = [label for label in labels if re.match(rf"{re.escape(label)}(?!\w)", text)]
    return max(fitting, key=len) if fitting else None


def _by_length(inputs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows in batches of like length, so that little is padded."""
    order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
    return [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]


class _Watch:
    """Turns finished rows into progress events."""

    def __init__(self, on_event: OnEvent, phase: str, total: int) -> None:
        self._on_event, self._phase, self._total = on_event, phase, total
        self._done, self._start = 0, time.monotonic()

    def advance(self, rows: int) -> None:
        """Tells of ``rows`` more rows."""
        self._done += rows
        elapsed = time.monotonic() - self._start
        left = elapsed / self._done * (self._total - self._done) if elapsed else math.nan
        self._on_event(Progress(self._phase, self._done, self._total, "example", seconds_left=left))
