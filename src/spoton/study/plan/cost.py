"""What a cell will cost, before it is run: tokens through the model times what a token costs on this machine.

The engine's cost model (docs/performance.md) is linear in tokens for short texts. Its two rates, seconds a token of
a training step and of scoring, are measured here on two small batches of real length, which takes seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from spoton.evaluation.encoding import encode
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.study.plan.cells import Cell, Role
from spoton.tasks.task import Example, Task
from spoton.tuning.microbatches import count_kept

_SAMPLE = 64
# Model tuning: the gradient of the weights is a third pass beside forward and backward; a copy of the weights, their
# gradient, two moments and the best so far, each in float32.
_WITH_WEIGHTS = 1.5
_BYTES_A_WEIGHT = 20
_TEXTS, _TOKENS, _PROMPT = 8, 32, 20


@dataclass(frozen=True)
class Rates:
    """What a token costs on this machine, with the threads it has.

    Attributes:
        train: Seconds a token of a training step, prompt included.
        score: Seconds a token of scoring.
        kept: Bytes a token that a training step keeps for its backward pass.
    """

    train: float
    score: float
    kept: float


def measure_rates(model: FrozenModel) -> Rates:
    """Times one small training step and one scoring pass, the best of three each."""
    draw = torch.Generator().manual_seed(0)
    top = max(2, min(model.tokenizer.vocab_size or 0, 1000))
    ids = torch.randint(1, top, (_TEXTS, _TOKENS), generator=draw).tolist()
    batch = Batch(ids, [row[:1] for row in ids])
    engine = engine_for(model)
    prompt = torch.zeros(_PROMPT, model.dim, device=model.device, requires_grad=True)
    with count_kept(model.network) as kept:
        losses = engine.losses([prompt], batch)
    del losses  # what is counted is what is alive at the end of the block
    tokens = _PROMPT + _TEXTS * (_TOKENS + 1)

    def step() -> None:
        engine.losses([prompt], batch).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def score() -> None:
        with torch.no_grad():
            engine.losses([prompt], batch)

    return Rates(_best(step) / tokens, _best(score) / tokens, kept.bytes / tokens)


def _best(call: Callable[[], None]) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


class Predictor:
    """Seconds and bytes of cells.

    Args:
        model: The frozen model.
        load: Gives the task of a role and name.
        rates: Of this machine; measured if not given.
    """

    def __init__(
        self, model: FrozenModel, load: Callable[[Role, str], Task], rates: Rates | None = None
    ) -> None:
        self._model, self._load = model, load
        self.rates = rates or measure_rates(model)
        self._tokens: dict[tuple[Role, str, int], float] = {}

    def seconds(self, cell: Cell) -> float:
        """Seconds of one worker for a cell."""
        recipe, task = cell.recipe, self._load(cell.role, cell.task)
        tokens = self.tokens(cell)
        looks = -(-recipe.steps // recipe.evaluate_every) + (cell.kind not in ("source", "scratch"))
        if cell.kind == "zero-shot":
            return (len(task.validation) + len(task.test)) * tokens * self.rates.score
        if cell.model_recipe is not None:
            weights = cell.model_recipe
            looks = -(-weights.steps // weights.evaluate_every)
            tuned = weights.steps * weights.batch_size * tokens * self.rates.train * _WITH_WEIGHTS
            return tuned + (looks * len(task.validation) + len(task.test)) * tokens * self.rates.score
        share = cell.halving.share(len(cell.rivals), recipe.steps) if cell.halving else 1.0
        tuned = share * recipe.steps * (recipe.length + recipe.batch_size * tokens) * self.rates.train
        if cell.source_recipe is not None:
            first = cell.source_recipe
            tuned += first.steps * (first.length + first.batch_size * tokens) * self.rates.train
        scored = (share * looks * len(task.validation) + len(task.test)) * tokens * self.rates.score
        return tuned + scored

    def memory(self, cell: Cell) -> float:
        """Bytes that a training step keeps beside the model, at the longest inputs."""
        recipe = cell.recipe
        if cell.model_recipe is not None:
            of_weights = _BYTES_A_WEIGHT * self._model.network.num_parameters()
            rows = cell.model_recipe.batch_size * cell.model_recipe.max_input_tokens
            return float(of_weights + rows * self.rates.kept)
        return (recipe.length + recipe.batch_size * recipe.max_input_tokens) * self.rates.kept

    def tokens(self, cell: Cell) -> float:
        """Mean tokens of an example, input and target, of a sample of the training split."""
        key = (cell.role, cell.task, cell.recipe.max_input_tokens)
        if key not in self._tokens:
            task = self._load(cell.role, cell.task)
            examples: tuple[Example, ...] = task.train[:_SAMPLE]
            encoded = encode(
                self._model, examples, end=False, prompt_length=cell.recipe.length,
                max_input_tokens=cell.recipe.max_input_tokens, labels=task.labels,
            )  # fmt: skip
            total = sum(map(len, encoded.inputs)) + sum(map(len, encoded.targets))
            self._tokens[key] = total / len(examples)
        return self._tokens[key]
