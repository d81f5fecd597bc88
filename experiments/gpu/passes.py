"""What a training step and a scoring pass cost on a GPU, by the number of prompts in a pass and by engine.

Random tokens of the lengths that small tasks have: 16 texts of 30 to 90 tokens for each prompt of 100.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.gpu.clock import clocked
from spoton import load_model
from spoton.models import Batch, FrozenModel, engine_for
from spoton.models.packed_decoder import PackedEngine
from spoton.tuning.microbatches import Microbatches, StepRows

PROMPTS = (1, 4, 16, 64)
LENGTH, ROWS, SHORTEST, LONGEST, STEPS = 100, 16, 30, 90, 8
ENGINES: dict[str, Callable[[FrozenModel], object]] = {"chosen": engine_for, "packed": PackedEngine}


def measure(out: Path) -> None:
    """Times steps and passes; writes `passes.json` after every measurement."""
    found: list[dict[str, Any]] = []
    for engine, make in ENGINES.items():
        model = load_model(device="cuda")
        model.derived["engine"] = make(model)
        for prompts in PROMPTS:
            found.append({"engine": engine, "name": engine_for(model).name} | one(model, prompts))
            (out / "passes.json").write_text(json.dumps(found, indent=1) + "\n")


def one(model: FrozenModel, prompts: int) -> dict[str, Any]:
    """Returns seconds of a step and of a scoring pass with K prompts, tokens of the step, and the peak of memory."""
    draw = random.Random(prompts)
    shape = (LENGTH, model.dim)
    values = [torch.randn(shape, device=model.device).mul_(0.1).requires_grad_() for _ in range(prompts)]
    steps = [[StepRows.of(texts(draw, ROWS), "examples") for _ in values] for _ in range(STEPS)]
    passes = Microbatches(model)
    passes.gradients(values, steps[0])  # measures memory, and warms up
    torch.cuda.reset_peak_memory_stats()
    training = clocked(lambda: [passes.gradients_on_device(values, step) for step in steps]) / STEPS
    peak = torch.cuda.max_memory_allocated()
    score = engine_for(model).scorer([value.detach() for value in values])
    rows = texts(draw, 256)
    asked = Batch(rows.inputs, [()] * len(rows), [row % prompts for row in range(len(rows))])
    score(asked, [[5], [9], [77, 8]])
    scoring = clocked(lambda: [score(asked, [[5], [9], [77, 8]]) for _ in range(STEPS)]) / STEPS
    tokens = sum(LENGTH + sum(map(len, step.batch.inputs)) for group in steps for step in group) / STEPS
    return {
        "prompts": prompts, "tokens": tokens, "training": training, "scoring_256": scoring, "peak": peak,
        "passes": passes.most_passes,
    }  # fmt: skip


def texts(draw: random.Random, rows: int) -> Batch:
    """Returns random texts with a target of one token."""
    inputs = [
        [draw.randrange(100, 40_000) for _ in range(draw.randrange(SHORTEST, LONGEST))] for _ in range(rows)
    ]
    return Batch(inputs, [[draw.randrange(100, 40_000)] for _ in range(rows)])
