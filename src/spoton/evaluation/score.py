"""Scores a prompt on examples, by `rank` or by `generate`; the result always names the mode.

`rank` takes the label word with the highest log-likelihood, summed over its tokens (or their mean, if requested): the
label set is closed. A prompt's calibration, if it has one, is applied to these scores first.
`generate` decodes greedily and compares text, as the papers do. With label words the text is cut to the length of the
longest one. It must then be, or begin with, a label as whole words; if several fit, the longest counts.
Nothing here changes a prompt.
"""

from __future__ import annotations

import heapq
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from spoton.errors import DataError
from spoton.evaluation.arguments import require_counts, require_examples, require_loaded
from spoton.evaluation.calibration import (
    calibrated,
    expected_calibration_error,
    gold_indices,
    reordered,
)
from spoton.evaluation.encoding import MAX_INPUT_TOKENS, Encoded, encode, needs_end
from spoton.evaluation.ensemble import calibrations_of, pooled, voted
from spoton.evaluation.many_prompts import label_scores_of, label_tokens
from spoton.events import OnEvent, Progress, silent
from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.models.memory import batches_by_length
from spoton.prompts.card import Calibration, Card
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float
from spoton.tasks.metrics import compute
from spoton.tasks.stored.rows import StoredRows
from spoton.tasks.task import Example, Task

Mode = Literal["rank", "generate"]
LabelScore = Literal["sum", "mean"]
"""How the log-probabilities of a label's tokens make its score. Sums favour labels with few tokens."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        mode: `rank` or `generate`.
        metric: Name of the main metric.
        scores: Every metric of the task, 0 to 100.
        predictions: The predicted target of each example, in order; None if the text matched no label.
        n: Number of examples.
        truncated: How many inputs lost their middle.
        loss: `rank`: mean negative log-probability of the correct label among the labels, nats; else None.
        label_scores: `rank`: `[N, C]` score of each label before any calibration; else None.
        calibration_error: `rank`: expected calibration error of the labels' probabilities in percent; else None.
        uncalibrated: The same evaluation without calibration; None if no calibration was applied.
    """

    mode: Mode
    metric: str
    scores: dict[str, float]
    predictions: list[str | None]
    n: int
    truncated: int
    loss: float | None = None
    label_scores: Float[Tensor, "N C"] | None = field(default=None, repr=False, compare=False)
    calibration_error: float | None = None
    uncalibrated: Evaluation | None = field(default=None, repr=False)

    @property
    def score(self) -> float:
        """The main metric."""
        return self.scores[self.metric]


def default_mode(task: Task) -> Mode:
    """Returns `rank` if the labels are a closed set, `generate` if any text may be correct."""
    return "generate" if task.labels is None else "rank"


def mode_of(task: Task, mode: Mode | None) -> Mode:
    """Returns the mode asked for, or the default of the task.

    Raises:
        DataError: There is no such mode, or the task has no labels to rank.
    """
    if mode is not None and mode not in get_args(Mode):
        raise DataError(f"Unknown way to evaluate {mode!r}; there is: {', '.join(get_args(Mode))}.")
    if mode == "rank" and task.labels is None:
        raise DataError(
            f"{task.name} has open targets, so there are no labels to rank. Evaluate it by generate."
        )
    return mode or default_mode(task)


def input_limit(card: Card) -> int:
    """Returns the longest input length that a prompt was tuned with; `MAX_INPUT_TOKENS` if its card has no recipe."""
    limit = card.recipe.get("max_input_tokens")
    return limit if isinstance(limit, int) else MAX_INPUT_TOKENS


def label_score_of(card: Card) -> LabelScore:
    """Returns how the prompt of a card scores labels; `sum` if its recipe does not say."""
    return "mean" if card.recipe.get("label_score") == "mean" else "sum"


def evaluate(
    model: FrozenModel,
    prompt: SoftPrompt | Tensor | None,
    examples: Sequence[Example],
    task: Task,
    mode: Mode | None = None,
    *,
    max_input_tokens: int | None = None,
    label_score: LabelScore | None = None,
    calibration: Calibration | None = None,
    calibrate: bool = True,
    max_tokens: int | None = None,
    on_event: OnEvent = silent,
    phase: str = "evaluating",
) -> Evaluation:
    """Scores a prompt on examples of a task.

    Args:
        model: The frozen model.
        prompt: A prompt; or its bare matrix `[P, D]`, whose model is unknown; or None for the bare model
            (zero-shot).
        examples: The examples to score on.
        task: Gives the labels and metrics.
        mode: `rank` or `generate`; None: `default_mode`.
        max_input_tokens: Longer inputs lose their middle. None: as the prompt was tuned, else `MAX_INPUT_TOKENS`.
        label_score: How a label's tokens make its score. None: as the prompt was tuned, else `sum`.
        calibration: Applied to label scores, of an ensemble to the mean of its prompts' log-probabilities, in place of
            theirs. None: that of the prompt's card, if its labels are the task's, in any order.
        calibrate: Whether the card's calibration is applied.
        max_tokens: Length of the longest generated answer to an open target. None: that of the longest training target.
            The scored targets do not decide it: their length would reveal the answer's.
        on_event: Called with progress events.
        phase: Name of this evaluation in progress events.

    Raises:
        DataError: There are no examples, or `rank` is used on a task without a closed label set, or there is no such
            mode, label score or length.
        PromptError: The prompt belongs to another model, or is not a matrix as wide as the model.
        ModelError: The model is not loaded.
    """
    require_loaded(model, task)
    require_counts(max_input_tokens=max_input_tokens, max_tokens=max_tokens)
    asked = _asked(model, prompt, task, calibrate)
    mode = mode_of(task, mode)
    _require_scorable(task, examples, label_score)
    longest = _longest_answer(model, task, max_tokens) if mode == "generate" else 0
    encoded = encode(
        model, examples, end=needs_end(model, task.labels), prompt_length=max(map(len, asked.values)),
        max_input_tokens=asked.limit if max_input_tokens is None else max_input_tokens, labels=task.labels,
        generated=longest,
    )  # fmt: skip
    watch = Watch(on_event, phase, len(examples) * len(asked.values))
    if mode == "rank":
        how = label_score or asked.label_score
        scores = member_scores(model, asked.values, encoded, task.labels or (), watch, how)
        if asked.members:
            return _ranked_together(task, examples, scores, asked.members, calibration, encoded.truncated)
        return ranked(task, examples, scores[0], calibration or asked.calibration, encoded.truncated)
    texts = [generate_texts(model, value, encoded, longest, watch) for value in asked.values]
    return _generated(task, examples, texts, encoded.truncated)


def _require_scorable(task: Task, examples: Sequence[Example], label_score: str | None) -> None:
    require_examples(examples)
    if label_score not in (None, *get_args(LabelScore)):
        raise DataError(f"Unknown label_score {label_score!r}; there is: {', '.join(get_args(LabelScore))}.")
    if not examples:
        raise DataError(f"{task.name} has no examples in this split, so nothing can be evaluated.")


@dataclass(frozen=True)
class _Asked:
    """What to ask, and how its prompt was tuned.

    Attributes:
        values: `[P, D]` each: one, or the prompts of an ensemble.
        limit: Tokens of the longest input.
        label_score: How a label's tokens make its score.
        calibration: Calibration of a single prompt.
        members: Calibration of each prompt of an ensemble; empty for a single prompt.
    """

    values: list[Float[Tensor, "_ D"]]
    limit: int = MAX_INPUT_TOKENS
    label_score: LabelScore = "sum"
    calibration: Calibration | None = None
    members: Sequence[Calibration | None] = ()


def _asked(model: FrozenModel, prompt: SoftPrompt | Tensor | None, task: Task, calibrate: bool) -> _Asked:
    if prompt is None:
        return _Asked([torch.zeros(0, model.dim)])
    if not isinstance(prompt, SoftPrompt):
        model.require_width(prompt)
        return _Asked([prompt])
    card = prompt.card
    prompt.require_model(model.fingerprints, model.name)
    own, labels = card.labels or [], task.labels or ()
    fits = calibrate and sorted(own) == sorted(labels)
    calibration, *members = (
        reordered(each, own, labels) if fits else None for each in (card.calibration, *calibrations_of(card))
    )
    return _Asked(prompt.values, input_limit(card), label_score_of(card), calibration, members)


def _generated(
    task: Task, examples: Sequence[Example], texts: Sequence[Sequence[str]], truncated: int
) -> Evaluation:
    """Evaluates the texts that each prompt generated; where answers are labels, the prompts vote on these."""
    predictions: list[str | None] = list(voted(texts))
    if task.labels:
        predictions = list(voted([[_as_label(text, task.labels) for text in own] for own in texts]))
    scores_by_metric = compute(
        task.metrics, predictions, [example.target for example in examples], task.labels, examples=examples
    )
    return Evaluation("generate", task.metric, scores_by_metric, predictions, len(examples), truncated)


def ranked(
    task: Task,
    examples: Sequence[Example],
    label_scores: Float[Tensor, "{len(examples)} C"],
    calibration: Calibration | None = None,
    truncated: int = 0,
) -> Evaluation:
    """Evaluates existing label scores; does not run the model.

    Args:
        task: Gives the labels and metrics.
        examples: The examples that were scored.
        label_scores: `[N, C]` from `label_log_likelihoods`.
        calibration: Applied to the scores first; the result then also holds the evaluation without it.
        truncated: How many inputs lost their middle.
    """
    labels = list(task.labels or ())
    targets = [example.target for example in examples]
    gold = gold_indices(targets, labels)
    used = calibrated(label_scores, calibration)
    predictions: list[str | None] = [labels[int(best)] for best in used.argmax(dim=1)]
    return Evaluation(
        "rank",
        task.metric,
        compute(task.metrics, predictions, targets, task.labels, examples=examples),
        predictions,
        len(examples),
        truncated,
        float(functional.cross_entropy(used, gold)),
        label_scores,
        expected_calibration_error(used.softmax(dim=1), gold),
        None if calibration is None else ranked(task, examples, label_scores, None, truncated),
    )


def _ranked_together(
    task: Task,
    examples: Sequence[Example],
    scores: Float[Tensor, "K {len(examples)} C"],
    members: Sequence[Calibration | None],
    calibration: Calibration | None,
    truncated: int,
) -> Evaluation:
    """Evaluates label scores `[K, N, C]` of an ensemble by their pooled log-probabilities.

    They are calibrated together if there is a `calibration`, else each prompt by its own.
    """
    if calibration is not None:
        return ranked(task, examples, pooled(scores, [None] * len(members)), calibration, truncated)
    found = ranked(task, examples, pooled(scores, members), None, truncated)
    if not any(members):
        return found
    raw = ranked(task, examples, pooled(scores, [None] * len(members)), None, truncated)
    return replace(found, uncalibrated=raw)


def member_scores(
    model: FrozenModel,
    values: Sequence[Float[Tensor, "_ D"]],
    encoded: Encoded,
    labels: Sequence[str],
    watch: Watch | None = None,
    label_score: LabelScore = "sum",
) -> Float[Tensor, "{len(values)} {len(encoded)} {len(labels)}"]:
    """Returns `label_log_likelihoods` of several prompts, in shared passes: `[K, N, C]`."""
    ids = label_tokens(model, labels)
    scores = label_scores_of(model, values, encoded, ids, on_rows=None if watch is None else watch.advance)
    return scores if label_score == "sum" else scores / torch.tensor([len(label) for label in ids])


def label_log_likelihoods(
    model: FrozenModel,
    value: Float[Tensor, "P D"],
    encoded: Encoded,
    labels: Sequence[str],
    label_score: LabelScore = "sum",
) -> Float[Tensor, "{len(encoded)} {len(labels)}"]:
    """Returns `[N, C]` log-likelihood of each label after each input, over the label's tokens, in nats.

    Decoder-only models score labels without an end token, unless one label is a prefix of another.

    Args:
        model: The frozen model.
        value: `[P, D]` the prompt.
        encoded: N inputs.
        labels: C label words.
        label_score: The sum over a label's tokens, or their mean.
    """
    return member_scores(model, [value], encoded, labels, label_score=label_score)[0]


def generate_texts(
    model: FrozenModel,
    value: Float[Tensor, "P D"],
    encoded: Encoded,
    max_tokens: int,
    watch: Watch,
) -> list[str]:
    """Returns the greedy continuation of each input after a prompt `[P, D]`, at most `max_tokens` tokens, as text."""
    engine, texts = engine_for(model), [""] * len(encoded)
    generate = engine.generator(value[None])
    repeated = len(value) if engine.repeats_prompts else 0
    for rows in batches_by_length(model, [len(row) + max_tokens for row in encoded.inputs], repeated):
        tokens = generate(encoded.batch(rows), max_tokens)
        for row, ids in zip(rows, tokens, strict=True):
            texts[row] = model.decode(ids)
        watch.advance(len(rows))
    return texts


def _longest_answer(model: FrozenModel, task: Task, asked: int | None) -> int:
    """Returns the tokens of the longest label; of open targets those asked for, else the longest that was taught."""
    if not task.labels and asked is not None:
        return asked
    end = needs_end(model, task.labels)
    if isinstance(task.train, StoredRows):
        longest = list(task.labels or task.train.longest_targets(64))
    else:
        taught = task.labels or {example.target for example in task.train}
        longest = heapq.nlargest(64, taught, key=len)  # in characters, to tokenize no more than needed
    return max(len(model.encode_target(target, end=end)) for target in longest)


def _as_label(text: str, labels: Sequence[str]) -> str | None:
    """Returns the longest label that a generated text is, or begins with as whole words; None if there is none."""
    fitting = [label for label in labels if re.match(rf"{re.escape(label)}(?!\w)", text)]
    return max(fitting, key=len) if fitting else None


class Watch:
    """Turns finished rows into progress events."""

    def __init__(self, on_event: OnEvent, phase: str, total: int, done: int = 0) -> None:
        self._on_event, self._phase, self._total = on_event, phase, total
        self._done, self._before, self._start = done, done, time.monotonic()

    def advance(self, rows: int) -> None:
        """Reports `rows` more rows."""
        self._done += rows
        elapsed = time.monotonic() - self._start
        left = elapsed / (self._done - self._before) * (self._total - self._done) if elapsed else math.nan
        self._on_event(Progress(self._phase, self._done, self._total, "example", seconds_left=left))
