"""The doctor: why does the run learn nothing? Examines the data as the model sees it and tries to overfit one batch."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from spoton.evaluation.arguments import require_loaded
from spoton.evaluation.encoding import Encoded, encode, needs_end, unknown_in_labels, unknown_sentence
from spoton.events import OnEvent, Progress, silent
from spoton.models.frozen import FrozenModel
from spoton.tasks.checks import oddities
from spoton.tasks.splits import stratified_sample
from spoton.tasks.stored.rows import StoredRows, target_counts
from spoton.tasks.task import Task
from spoton.tuning.initial_prompt import embedding_rms, starting_prompt
from spoton.tuning.microbatches import Microbatches, StepRows
from spoton.tuning.optimizer import make_optimizer
from spoton.tuning.prompt_learner import PromptLearner, learning_rate
from spoton.tuning.recipe import PRESETS, Recipe, require_recipe
from spoton.tuning.row_order import rows_of_step
from spoton.tuning.training_run import labels_of_loss
from spoton.tuning.tune import AUTO_RATES

# Factors on the recipe's learning rate, about four apart.
_RATE_FACTORS = (0.25, 1.0, 4.0)
_RATE_STEPS = 12
_MOST_ROWS = 10_000  # tokenized rows of a file that is too large to tokenize whole
_FITTED = 0.1  # of the initial loss


@dataclass(frozen=True)
class Diagnosis:
    """The result of the doctor.

    Attributes:
        task: Name of the task.
        splits: Examples of each split.
        balance: Share of each target in the training split, most frequent first; at most 20.
        label_tokens: Each label's tokens as the model sees them.
        input_tokens: Quantiles of the inputs' lengths in tokens.
        truncated: Training inputs that lose their middle under the recipe.
        rates: For each learning rate, the loss on one batch before and after a few steps on it.
        step_seconds: Wall time of one of these steps, their median.
        steps: Steps of the recipe, the most that a run takes.
        findings: What to know and what to do, one sentence each; empty if there is nothing to report.
    """

    task: str
    splits: dict[str, int]
    balance: dict[str, float]
    label_tokens: dict[str, list[str]]
    input_tokens: dict[str, int]
    truncated: int
    rates: list[dict[str, float]]
    step_seconds: float = field(compare=False)
    steps: int
    findings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values; a loss that is not finite is None, since JSON has no word for it."""
        rates = [
            {name: number if math.isfinite(number) else None for name, number in rate.items()}
            for rate in self.rates
        ]
        return asdict(self) | {"rates": rates}


def diagnose(
    model: FrozenModel, task: Task, recipe: Recipe | None = None, *, on_event: OnEvent = silent
) -> Diagnosis:
    """Examines a task and a recipe with a model.

    The overfitting check takes one batch and a few steps at three learning rates, with the loss, the clipping and the
    reparameterization of the recipe: a prompt that cannot even fit one batch will not learn a task.

    Args:
        model: The frozen model.
        task: The task whose training split is examined.
        recipe: The recipe to examine; None: the default.
        on_event: Called with progress events.

    Raises:
        DataError: An input is empty or a target does not fit the model's context, or the task is not loaded.
        ModelError: The model is not loaded.
        RecipeError: The recipe is the name of a preset, or plain values.
    """
    require_loaded(model, task)
    recipe = recipe or PRESETS["decoder"]
    require_recipe(recipe)
    some = (
        stratified_sample(task.train, _MOST_ROWS, task.labels, 0)
        if isinstance(task.train, StoredRows)
        else task.train
    )
    train = encode(
        model, some, end=needs_end(model, task.labels), prompt_length=recipe.length,
        max_input_tokens=recipe.max_input_tokens, labels=task.labels,
    )  # fmt: skip
    lengths = [len(model.encode_input(example.input)) for example in some]
    counts = target_counts(task.train).most_common(20)
    balance = {target: count / len(task.train) for target, count in counts}
    label_tokens = {
        label: [str(model.tokenizer.decode([i])) for i in model.encode_target(label, end=False)]
        for label in task.labels or ()
    }
    quantiles = {
        name: int(np.quantile(lengths, q)) for name, q in (("median", 0.5), ("95%", 0.95), ("longest", 1))
    }
    rates, step_seconds = _rates(model, task, recipe, train, on_event)
    findings = [
        *_about_data(task, balance),
        *_about_tokens(label_tokens, unknown_in_labels(model, task.labels), train, recipe),
        *_about_rates(rates),
    ]
    return Diagnosis(
        task.name, task.splits(), balance, label_tokens, quantiles, train.truncated, rates, step_seconds, recipe.steps,
        findings,
    )  # fmt: skip


def _rates(
    model: FrozenModel, task: Task, recipe: Recipe, train: Encoded, on_event: OnEvent
) -> tuple[list[dict[str, float]], float]:
    """Returns the loss on one batch before and after a few steps on it, at each learning rate; and a step's seconds."""
    rows = rows_of_step(len(train), min(recipe.batch_size, len(train)), 0, recipe.seed)
    batch = train.batch(rows)
    labels = labels_of_loss(model, task, recipe)
    passes, step_rows = Microbatches(model), StepRows.of(batch, recipe.loss, labels)
    start = starting_prompt(model, task, recipe)[0]
    results, seconds = [], []
    for i, factor in enumerate(_RATE_FACTORS):
        rate = _middle_rate(model, recipe) * factor
        learner = PromptLearner(model, recipe.changed(learning_rate=rate, rate_unit="absolute"), start)
        optimizer = make_optimizer(recipe, learner.parameters, rate)
        losses = []
        for step in range(_RATE_STEPS):
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            losses += passes.backward([learner.prompt()], [step_rows]).tolist()
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(learner.parameters, recipe.clip)
            optimizer.step()
            seconds.append(time.perf_counter() - began)
            done = i * _RATE_STEPS + step + 1
            on_event(
                Progress(
                    "overfitting one batch", done, len(_RATE_FACTORS) * _RATE_STEPS, "step", loss=losses[-1]
                )
            )
        results.append({"learning_rate": rate, "before": losses[0], "after": min(losses[-3:])})
    return results, statistics.median(seconds)


def _middle_rate(model: FrozenModel, recipe: Recipe) -> float:
    """Returns the recipe's learning rate; if tuning is to choose it, the middle of the choices."""
    if recipe.learning_rate == "auto":
        return AUTO_RATES[len(AUTO_RATES) // 2] * embedding_rms(model)
    return learning_rate(model, recipe)


def _about_data(task: Task, balance: dict[str, float]) -> list[str]:
    """Returns findings on examples and targets."""
    findings = []
    if not task.validation:
        findings.append("There is no validation split, so the best step cannot be chosen.")
    elif len(task.validation) < 30:
        findings.append(
            f"{len(task.validation)} validation examples: scores move by several points by chance."
        )
    top, share = max(balance.items(), key=lambda one: one[1])
    if task.labels and share > 0.8:
        findings.append(f"{share:.0%} of the training targets are {top!r}: judge by macro F1, not accuracy.")
    return [*findings, *oddities(task)]


def _about_tokens(
    label_tokens: dict[str, list[str]], unknown: Sequence[str], train: Encoded, recipe: Recipe
) -> list[str]:
    """Returns findings on how labels and inputs are tokenized."""
    findings = [unknown_sentence(unknown)] if unknown else []
    firsts = Counter(tokens[0] for tokens in label_tokens.values() if tokens)
    shared = [token for token, count in firsts.items() if count > 1]
    if shared:
        findings.append(
            f"Several labels begin with the same token ({', '.join(map(repr, shared))}); words that differ at once "
            "are learned faster."
        )
    lengths = {label: len(tokens) for label, tokens in label_tokens.items()}
    findings += _about_lengths(lengths, summed=recipe.label_score == "sum")
    if train.truncated:
        room = max(map(len, train.inputs))
        advice = (
            "Raise --max-input-tokens if the middle matters."
            if room == recipe.max_input_tokens
            else "The model's context has no more; a shorter prompt or shorter labels leave a little."
        )
        findings.append(
            f"{train.truncated} of {len(train)} training inputs are longer than {room} tokens and "
            f"lose their middle. {advice}"
        )
    return findings


def _about_lengths(lengths: dict[str, int], *, summed: bool) -> list[str]:
    """Returns findings on how many tokens labels have; `summed`: whether their scores are sums and not means."""
    long = [f"{label!r} ({length})" for label, length in lengths.items() if length > 1]
    if not long:
        return []
    shown = ", ".join(long[:5]) + (f" and {len(long) - 5} more" if len(long) > 5 else "")
    findings = [f"Labels of several tokens: {shown}. A common word of one token is learned faster."]
    if summed and len(set(lengths.values())) > 1:
        findings.append(
            f"Labels have unequal numbers of tokens, {min(lengths.values())} to {max(lengths.values())}: `rank` sums "
            "over them, so that long labels start behind. Choose words of equal length, such as one token each."
        )
    return findings


def _about_rates(rates: Sequence[dict[str, float]]) -> list[str]:
    """Returns findings on the learning rate."""
    own = rates[_RATE_FACTORS.index(1.0)]
    fitting = [rate for rate in rates if math.isfinite(rate["after"])]
    if not fitting:
        return ["The loss is not a number at any learning rate tried: load the model with --dtype float32."]
    best = min(fitting, key=lambda rate: rate["after"])
    findings = []
    # A rate that has almost fitted the batch is not worse for a loss of 0.03 where another reaches 0.01.
    fits = own["after"] <= _FITTED * own["before"]
    if not math.isfinite(own["after"]) or (not fits and best["after"] < 0.5 * own["after"]):
        findings.append(
            f"On one batch, learning rate {best['learning_rate']:g} reaches a loss of {best['after']:.2f} in "
            f"{_RATE_STEPS} steps, yours ({own['learning_rate']:g}) {own['after']:.2f}: try the former."
        )
    if best["after"] > 0.8 * best["before"]:
        findings.append(
            "No learning rate tried lowers the loss of a single batch much. Check that inputs hold what targets "
            "ask for (`spoton tasks show`), and try a longer prompt or --init labels."
        )
    return findings
