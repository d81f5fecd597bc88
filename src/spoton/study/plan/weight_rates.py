"""Measures what model tuning costs for every weight: the optimizer's step, and the state that an evaluation writes.

A prompt has few numbers, so these costs do not count in prompt tuning. In model tuning with few rows in a step they are
most of the time: on a CPU, a checkpoint of 135 million weights takes as long as several steps. The passes through the
model are in `cost.py`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import torch

from spoton.errors import SpotonError
from spoton.models.frozen import FrozenModel
from spoton.tuning.course import Course
from spoton.tuning.full_model.checkpoint import ModelCheckpoint
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.optimizer import make_optimizer
from spoton.tuning.training_run import Learner

_SAMPLE = 2**23  # weights that are updated and written to measure the rates; a checkpoint of 100 MB
_TENSORS = 16  # the optimizer treats many tensors differently from one


class WeightRates(NamedTuple):
    """Seconds for every weight of the model.

    Attributes:
        step: Of one optimizer step, with a new gradient.
        checkpoint: Of one checkpoint: weights and optimizer state, with their hashes.
    """

    step: float = 0.0
    checkpoint: float = 0.0


def measure_weight_rates(model: FrozenModel, recipe: ModelRecipe) -> WeightRates:
    """Times steps and checkpoints of a sample of weights: the fastest step, and a typical checkpoint.

    A checkpoint is hashed, read again by the next one and written to the disk of temporary files, and its time varies
    more than that of a step.

    Args:
        model: The frozen model, which says how many weights there are and where; it does not change.
        recipe: How the weights are tuned.
    """
    size = max(1, min(_SAMPLE, model.network.num_parameters()) // _TENSORS)
    weights = {str(i): torch.ones(size, device=model.device, requires_grad=True) for i in range(_TENSORS)}
    optimizer = make_optimizer(recipe, list(weights.values()), recipe.learning_rate, scaling=True)

    def step() -> None:
        for weight in weights.values():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        optimizer.zero_grad()

    stepped = min(seconds_of(step))
    return WeightRates(stepped / (size * _TENSORS), _written(weights, optimizer) / (size * _TENSORS))


def _written(weights: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> float:
    """Returns the seconds of a typical checkpoint of weights `[...]`; 0 if there is no place for temporary files."""
    learner = cast("Learner", SimpleNamespace(weights=weights))  # a checkpoint reads nothing else
    steps = count(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = ModelCheckpoint(Path(folder) / "checkpoint", "sample")

            def write() -> None:
                at = next(steps)
                checkpoint.write(Course(step=at, best_step=at), learner, optimizer)

            write()  # there is none to read yet, so it is faster than the others
            return statistics.median(seconds_of(write))
    except (OSError, SpotonError):  # a study runs without a prediction of its time
        return 0.0


def seconds_of(call: Callable[[], None]) -> list[float]:
    """Returns the seconds of each of three calls; the first also does what is needed only once."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times
