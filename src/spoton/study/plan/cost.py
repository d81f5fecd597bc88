"""Predicts the cost of a cell: passes and tokens through the model, and the seconds they take on this machine.

Counting needs no model: it takes the work of a cell, the sizes of its task, and whether the engine runs a prompt once
per pass or once per row. For texts of one length, the engine's cost model (docs/performance.md) is linear in tokens and
passes. Its rates are measured here, in seconds, on batches with the study's text length, prompt length and batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from spoton.evaluation.calibration import ROWS as CALIBRATION_ROWS
from spoton.evaluation.encoding import encode
from spoton.evaluation.score import Mode
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch, Engine
from spoton.models.frozen import FrozenModel
from spoton.study.plan.cell_base import TaskRole, Work
from spoton.study.plan.cells import Cell, MultiTaskMixture, MultiTaskModelTuning, Source, WeightTuning
from spoton.study.plan.weight_rates import WeightRates, measure_weight_rates, seconds_of
from spoton.tasks.task import Task
from spoton.tuning.microbatches import count_kept

_SAMPLE = 64
_SCORED_AT_ONCE = 32  # rows in a pass of evaluate()
# Model tuning: the gradient of the weights is a third pass in addition to forward and backward. Memory holds a copy of
# the weights, their gradient, two moments and the best weights so far, each in float32.
_WITH_WEIGHTS = 1.5
_BYTES_A_WEIGHT = 20
_MEASURED_TOKENS = (
    4096  # most tokens in a measured step, so that a large model on a CPU takes seconds, not minutes
)


class TaskSize(NamedTuple):
    """How large a task is.

    Attributes:
        validation: Rows of the validation split.
        test: Rows of the test split.
        input_tokens: Mean tokens of an input, after truncation.
        target_tokens: Mean tokens of a target.
        train: Rows of the training split.
    """

    validation: int
    test: int
    input_tokens: float
    target_tokens: float
    train: int = 0

    @property
    def tokens(self) -> float:
        """Mean tokens of an example."""
        return self.input_tokens + self.target_tokens


class Counted(NamedTuple):
    """What a cell runs through the model. Tokens of a prompt count every time the engine runs them.

    Attributes:
        steps: Optimizer steps.
        input_tokens: Tokens of texts and prompts in training.
        target_tokens: Tokens of targets in training.
        pairs: Ordered pairs of tokens in training of which the first attends to the second.
        score_passes: Passes of scoring.
        score_input_tokens: Tokens of texts and prompts that are scored.
        score_target_tokens: Tokens of targets that are scored.
        score_pairs: Pairs of tokens in scoring.
        weights: Whether all weights are tuned.
    """

    steps: float
    input_tokens: float
    target_tokens: float
    pairs: float
    score_passes: float
    score_input_tokens: float
    score_target_tokens: float
    score_pairs: float
    weights: bool = False

    @property
    def tokens(self) -> float:
        """Tokens in training."""
        return self.input_tokens + self.target_tokens

    @property
    def score_tokens(self) -> float:
        """Tokens that are scored."""
        return self.score_input_tokens + self.score_target_tokens


def mean_size(sizes: Sequence[TaskSize]) -> TaskSize:
    """Returns the mean of several sizes, which serves as the size of a mixture."""
    validation, test, inputs, targets, train = (
        sum(column) / len(sizes) for column in zip(*sizes, strict=True)
    )
    return TaskSize(round(validation), round(test), inputs, targets, round(train))


def count(
    work: Work, size: TaskSize, mode: Mode, *, repeats_prompts: bool, mixed: TaskSize | None = None
) -> Counted:
    """Counts what a cell runs through the model.

    Args:
        work: The work of the cell.
        size: The size of its task.
        mode: How it is scored; generation takes one pass per token.
        repeats_prompts: Whether a prompt runs once per row (`Engine.repeats_prompts`), rather than once per pass.
        mixed: The size of the rows in all stages but the last, if they are not those of the task.
    """
    steps = inputs = targets = pairs = 0.0
    for stage in work.stages:
        read = size if mixed is None or stage is work.stages[-1] else mixed
        rows = stage.batch_size
        prompts = rows if repeats_prompts else 1
        steps += stage.steps
        inputs += stage.steps * (prompts * stage.prompt_length + rows * read.input_tokens)
        targets += stage.steps * rows * read.target_tokens
        pairs += stage.steps * _pairs(rows, prompts, stage.prompt_length, read, repeats_prompts)
    scored = [
        (work.validations, size.validation), (work.tests, size.test),
        (work.calibrations, min(CALIBRATION_ROWS, size.train)),
    ]  # fmt: skip
    rows_scored = sum(times * rows for times, rows in scored)
    passes = sum(times * math.ceil(rows / _SCORED_AT_ONCE) for times, rows in scored)
    if mode == "generate":
        passes += passes * size.target_tokens
    prompts_scored = rows_scored if repeats_prompts else sum(times for times, _ in scored)
    return Counted(
        steps, inputs, targets, pairs, passes,
        rows_scored * size.input_tokens + prompts_scored * work.prompt_length, rows_scored * size.target_tokens,
        _pairs(rows_scored, prompts_scored, work.prompt_length, size, repeats_prompts),
        weights=any(stage.weights for stage in work.stages),
    )  # fmt: skip


def _pairs(rows: float, prompts: float, length: int, size: TaskSize, is_bidirectional: bool) -> float:
    """Returns the number of pairs of tokens that attend: all of a row in an encoder, else each to the prompt and to
    earlier tokens."""
    if is_bidirectional:
        return rows * (length + size.tokens) ** 2
    return rows * size.tokens * (length + size.tokens / 2) + prompts * length**2 / 2


@dataclass(frozen=True)
class Rates:
    """The cost of passes and tokens on this machine, with the current number of threads.

    Attributes:
        train: Seconds per token of a training step, prompt included.
        score: Seconds per token of scoring.
        kept: Bytes per token that a training step keeps for its backward pass.
        train_pass: Seconds of a training step in addition to its tokens.
        score_pass: Seconds of a scoring pass in addition to its tokens.
        weights: Seconds for every weight in model tuning; 0 if no cell tunes the model.
    """

    train: float
    score: float
    kept: float
    train_pass: float = 0.0
    score_pass: float = 0.0
    weights: WeightRates = field(default_factory=WeightRates)


def measure_rates(model: FrozenModel, *, rows: int = 8, tokens: int = 32, length: int = 20) -> Rates:
    """Times small steps and scoring passes of two sizes, the best of three each, and fits a line through them.

    Args:
        model: The frozen model.
        rows: Rows in a step of the study.
        tokens: Tokens in a text of the study.
        length: Tokens in a prompt of the study.
    """
    engine = engine_for(model)
    room = max(1, _MEASURED_TOKENS // (tokens + (length if engine.repeats_prompts else 0)))
    sizes = [max(1, min(rows, room) // 4), max(2, min(rows, room))]
    prompt = torch.zeros(length, model.dim, device=model.device, requires_grad=True)
    batches = [_batch(model, size, tokens) for size in sizes]
    with count_kept(model.network) as kept:
        losses = engine.losses([prompt], batches[1])
    del losses  # only tensors that are alive at the end of the block are counted
    counts = [size * (tokens + 1) + length * (size if engine.repeats_prompts else 1) for size in sizes]

    def step(batch: Batch) -> None:
        engine.losses([prompt], batch).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    train, train_pass = _line(counts, [min(seconds_of(lambda batch=batch: step(batch))) for batch in batches])  # type: ignore[misc]
    score, score_pass = _line(counts, [min(seconds_of(_scoring(engine, prompt, batch))) for batch in batches])
    return Rates(train, score, kept.bytes / counts[1], train_pass, score_pass)


def _batch(model: FrozenModel, rows: int, tokens: int) -> Batch:
    """Returns random texts, each with a target of one token."""
    draw = torch.Generator().manual_seed(0)
    top = max(2, min(model.tokenizer.vocab_size or 0, 1000))
    ids = torch.randint(1, top, (rows, tokens), generator=draw).tolist()
    return Batch(ids, [row[:1] for row in ids])


def _scoring(engine: Engine, prompt: torch.Tensor, batch: Batch) -> Callable[[], None]:
    """Returns a function that scores two labels of one token after each text."""
    labels = [batch.targets[0], batch.targets[-1]]

    def score() -> None:
        with torch.no_grad():
            engine.scorer(prompt[None])(batch, labels)

    return score


def _line(counts: list[int], seconds: list[float]) -> tuple[float, float]:
    """Returns seconds per token and seconds per pass from two measurements; a pass costs nothing if noise would make
    its cost negative."""
    slope = (seconds[1] - seconds[0]) / (counts[1] - counts[0])
    offset = seconds[1] - slope * counts[1]
    if slope <= 0 or offset < 0:
        return seconds[1] / counts[1], 0.0
    return slope, offset


class Predictor:
    """Predicts seconds and bytes of cells.

    Args:
        model: The frozen model.
        load: Returns the task of a role and name.
        cells: The cells of the study: rates are measured at their typical text length, prompt length and batch size.
        rates: Rates of this machine; None: they are measured.
    """

    def __init__(
        self,
        model: FrozenModel,
        load: Callable[[TaskRole, str], Task],
        cells: list[Cell] | None = None,
        rates: Rates | None = None,
    ) -> None:
        self._model, self._load = model, load
        self._repeats = engine_for(model).repeats_prompts
        self._sizes: dict[tuple[TaskRole, str, int], TaskSize] = {}
        self._sources = {cell.task: cell for cell in cells or [] if isinstance(cell, Source)}
        self.rates = rates or self._measured(cells or [])

    def seconds(self, cell: Cell) -> float:
        """Returns the seconds that one worker needs for a cell."""
        counted, rates = self.counted(cell), self.rates
        tuned = counted.steps * rates.train_pass + counted.tokens * rates.train
        scored = counted.score_passes * rates.score_pass + counted.score_tokens * rates.score
        if not counted.weights:
            return tuned + scored
        # The state is written at every evaluation.
        each = counted.steps * rates.weights.step + cell.work().validations * rates.weights.checkpoint
        return _WITH_WEIGHTS * tuned + each * self._model.network.num_parameters() + scored

    def memory(self, cell: Cell) -> float:
        """Returns the bytes that a training step keeps next to the model, for inputs of the largest length."""
        stages = cell.work().stages
        if not stages:
            return 0.0
        # Multi-task model tuning starts from weights of its own, which are there as well.
        a_weight = _BYTES_A_WEIGHT + (4 if isinstance(cell, MultiTaskModelTuning) else 0)
        bytes_of_stages = []
        for stage in stages:
            prompts = stage.batch_size if self._repeats else 1
            tokens = prompts * stage.prompt_length + stage.batch_size * stage.max_input_tokens
            weights = a_weight * self._model.network.num_parameters() if stage.weights else 0
            bytes_of_stages.append(weights + tokens * self.rates.kept)
        return float(max(bytes_of_stages))

    def counted(self, cell: Cell) -> Counted:
        """Returns what a cell runs through the model."""
        if cell.work().is_nothing:  # a prompt of a library, whose rows are not read
            return Counted(0, 0, 0, 0, 0, 0, 0, 0)
        mixed = None
        if isinstance(cell, MultiTaskMixture) and self._sources:
            mixed = mean_size([self.size(source) for source in self._sources.values()])
        return count(cell.work(), self.size(cell), cell.mode, repeats_prompts=self._repeats, mixed=mixed)

    def size(self, cell: Cell) -> TaskSize:
        """Returns the size of a cell's task; its tokens come from a sample of the training split."""
        limit = cell.work().max_input_tokens
        key = (cell.role, cell.task, limit)
        if key not in self._sizes:
            task = self._load(cell.role, cell.task)
            examples = task.train[:_SAMPLE]
            encoded = encode(
                self._model, examples, end=False, prompt_length=cell.recipe.length, max_input_tokens=limit,
                labels=task.labels,
            )  # fmt: skip
            inputs, targets = (
                sum(map(len, some)) / len(examples) for some in (encoded.inputs, encoded.targets)
            )
            self._sizes[key] = TaskSize(
                len(task.validation), len(task.test), inputs, targets, len(task.train)
            )
        return self._sizes[key]

    def _measured(self, cells: list[Cell]) -> Rates:
        """Measures rates at the median size of the cells' steps, and those of weights if a cell tunes the model."""
        rates = self._measured_passes(cells)
        tuned = next((cell for cell in cells if isinstance(cell, WeightTuning)), None)
        if tuned is None:
            return rates
        return replace(rates, weights=measure_weight_rates(self._model, tuned.model_recipe))

    def _measured_passes(self, cells: list[Cell]) -> Rates:
        stages = [(cell, stage) for cell in cells for stage in cell.work().stages if not stage.weights]
        if not stages:
            return measure_rates(self._model)
        cell, stage = sorted(stages, key=lambda pair: self.size(pair[0]).tokens)[len(stages) // 2]
        tokens = max(1, round(self.size(cell).input_tokens))
        return measure_rates(self._model, rows=stage.batch_size, tokens=tokens, length=stage.prompt_length)
