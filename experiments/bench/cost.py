"""How time and memory of a step grow with P, text length, batch, K, labels and model size, checked at a dozen points.

Time: `FLOP / rate + layers * (blocks + 1) * overhead`, with the FLOP of the unavoidable products. Memory: what a
layer keeps of every token (by its widths) plus its attention weights. Rate and overhead are fitted to all points but
one and checked on that one, for each point in turn. Memory has nothing to fit.

    python -m experiments.bench.cost
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.bench.machine import describe
from experiments.bench.products import DecoderShape, unavoidable_products
from spoton import load_model
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.models.packed_rows import Layout, PromptCache, lay_out
from spoton.tuning.microbatches import count_kept
from spoton.tuning.record import write_record

RESULT = Path(__file__).parents[2] / "docs" / "experiments" / "cost_model.json"


@dataclass(frozen=True)
class Point:
    """One kind of step: the number of one-token `labels` that it scores; 0 means a training step."""

    name: str
    length: int
    texts: int
    tokens: int
    prompts: int = 1
    labels: int = 0
    layers: int = 30


POINTS = (
    Point("base: P=20, 16 texts of 24 tokens", 20, 16, 24),
    Point("P=100", 100, 16, 24),
    Point("P=200", 200, 16, 24),
    Point("8 texts", 20, 8, 24),
    Point("32 texts", 20, 32, 24),
    Point("texts of 96 tokens", 20, 16, 96),
    Point("texts of 240 tokens", 20, 8, 240),
    Point("K=4", 20, 16, 24, prompts=4),
    Point("K=8, P=100", 100, 16, 24, prompts=8),
    Point("half the layers", 20, 16, 24, layers=15),
    Point("scoring 2 labels", 20, 32, 24, labels=2),
    Point("scoring 8 labels", 100, 32, 24, labels=8),
)


class Step:
    """A point, ready to be timed."""

    def __init__(self, point: Point, model: FrozenModel) -> None:
        self.point, self.model, self.engine = point, model, engine_for(model)
        draw = np.random.default_rng(0)
        ids = draw.integers(1000, 20000, (point.texts, point.tokens + 1)).tolist()
        owners = [row % point.prompts for row in range(point.texts)]
        self.batch = Batch([row[:-1] for row in ids], [row[-1:] for row in ids], owners)
        self.prompts = [
            (torch.randn(point.length, model.dim) * 0.1).requires_grad_(not point.labels)
            for _ in range(point.prompts)
        ]
        self.labels = [[5000 + label] for label in range(point.labels)]
        self._score = self.engine.scorer(self.prompts) if point.labels else None
        own = [point.length] * point.prompts
        cache = PromptCache() if point.labels else None
        self.layout: Layout = lay_out(own, [point.tokens] * point.texts, owners, model.dtype, cache=cache)
        self.run()

    def run(self) -> float:
        """Runs one step and returns its seconds."""
        began = time.perf_counter()
        if self._score is not None:
            self._score(self.batch, self.labels)
        else:
            self.engine.losses(self.prompts, self.batch).sum().backward()
        return time.perf_counter() - began

    @property
    def flops(self) -> float:
        """Returns the FLOP of the unavoidable products; prompts beyond the first are tokens that see each other."""
        point, training = self.point, not self.point.labels
        shape = DecoderShape.of(self.model.network.config)
        lengths = [point.tokens] * point.texts
        total = sum(
            p.flops
            for p in unavoidable_products(shape, point.length, lengths, point.texts, training=training)
        )
        if training and point.prompts > 1:
            one = unavoidable_products(shape, 0, [point.length], 0, training=True)
            total += (point.prompts - 1) * sum(p.flops for p in one)
        return float(total)

    @property
    def calls(self) -> int:
        """Returns layers times blocks; each costs the same, however few tokens it has."""
        return self.model.network.config.num_hidden_layers * (len(self.layout.blocks) + 1)

    def kept_bytes(self) -> tuple[int, float]:
        """Returns counted bytes, and bytes by the formula: what a layer keeps of a token, and its attention weights."""
        with count_kept(self.model.network) as kept:
            losses = self.engine.losses(self.prompts, self.batch)
        del losses
        config, size = self.model.network.config, self.model.dtype.itemsize
        tokens = self.point.prompts * self.point.length + self.point.texts * self.point.tokens
        weights = (
            sum(block.places.numel() * (block.before + block.places.shape[1]) for block in self.layout.blocks)
            * config.num_attention_heads
        )
        # Both norms keep their input; attention its queries, keys and values; the feed-forward layer its gate, the
        # gate's activation and what that is multiplied with, in the last layer at the targets alone.
        keys = config.num_key_value_heads * config.head_dim
        queries = config.num_attention_heads * config.head_dim
        attended = config.hidden_size + queries + 2 * keys
        fed = config.hidden_size + 3 * config.intermediate_size
        layers = config.num_hidden_layers
        return kept.bytes, size * (layers * (tokens * attended + weights) + (layers - 1) * tokens * fed)


def fit(flops: list[float], calls: list[int], seconds: list[float]) -> tuple[float, float]:
    """Returns seconds per FLOP and per call, by least squares of relative errors; neither is below 0."""
    y = np.array(seconds)
    x = np.stack([np.array(flops) / y, np.array(calls) / y], axis=1)
    found = np.linalg.lstsq(x, np.ones(len(y)), rcond=None)[0]
    if found[1] < 0:
        found = np.array([float((x[:, 0] @ np.ones(len(y))) / (x[:, 0] @ x[:, 0])), 0.0])
    return float(found[0]), float(found[1])


def main() -> None:
    """Measures all points in turn; writes the record and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model()
    models: dict[int, FrozenModel] = {30: model, 15: _shallower(model)}
    steps = [Step(point, models[point.layers]) for point in POINTS]
    runs: list[list[float]] = [[] for _ in steps]
    for number in range(arguments.rounds):
        sys.stderr.write(f"round {number + 1}/{arguments.rounds}\n")
        for found, step in zip(runs, steps, strict=True):
            found.append(step.run())
    seconds = [statistics.median(found) for found in runs]
    flops, calls = [step.flops for step in steps], [step.calls for step in steps]
    rows: list[dict[str, Any]] = []
    for i, step in enumerate(steps):
        rest = [j for j in range(len(steps)) if j != i]
        per_flop, per_call = fit(
            [flops[j] for j in rest], [calls[j] for j in rest], [seconds[j] for j in rest]
        )
        predicted = flops[i] * per_flop + calls[i] * per_call
        row = {
            "point": step.point.name,
            "seconds": seconds[i],
            "predicted_seconds": predicted,
            "gflop": flops[i] / 1e9,
        }
        if not step.point.labels:
            counted, formula = step.kept_bytes()
            row |= {"kept_bytes": counted, "predicted_bytes": formula}
        rows.append(row)
    per_flop, per_call = fit(flops, calls, seconds)
    record = {
        "rows": rows, "gflop_per_second": 1e-9 / per_flop, "microseconds_per_layer_and_block": per_call * 1e6,
        "machine": describe(allocator_tuned=False), "dtype": str(model.dtype), "threads": arguments.threads,
    }  # fmt: skip
    write_record(RESULT, record)
    lines = ["| step | ms | predicted | kept MB | predicted |", "|---|---|---|---|---|"]
    for row in rows:
        memory = [f"{row[k] / 1e6:.0f}" if k in row else "" for k in ("kept_bytes", "predicted_bytes")]
        times = [f"{row[k] * 1e3:.0f}" for k in ("seconds", "predicted_seconds")]
        lines.append(f"| {row['point']} | {' | '.join([*times, *memory])} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _shallower(model: FrozenModel) -> FrozenModel:
    """Returns a random model with half as many layers."""
    config = LlamaConfig.from_dict(model.network.config.to_dict() | {"num_hidden_layers": 15})
    return FrozenModel("half", LlamaForCausalLM(config).to(model.dtype), model.tokenizer)


if __name__ == "__main__":
    main()
