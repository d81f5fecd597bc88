"""Are frozen weights in int8 faster on this processor, and what do they cost in accuracy?

Weights get one scale per output channel, and inputs one scale per token, found anew in every product (oneDNN, through
torch's quantized operators). Two variants: every projection of the layers, and all but the projection back from the
feed-forward width, whose inputs have outliers. Each prompt of the starter library is scored on the same test rows in
float32, in both variants and, where the processor computes in it, in bfloat16, alternating in one process. The gradient
of the prompt is compared, too, for tuning: its backward pass stays in float32, so only the noise of the forward pass
counts.

    python -m experiments.int8 --data-dir data --threads 1 --out docs/experiments/int8_vnni.json
    python -m experiments.int8 --table --out docs/experiments/int8_vnni.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.bench.machine import describe
from spoton import SoftPrompt, evaluate, load_model, starter_library
from spoton.evaluation.late_encoding import encode_for_training
from spoton.models import FrozenModel, frozen_layers
from spoton.models.choose_engine import engine_for
from spoton.tasks import Task, load_task
from spoton.tuning.microbatches import Microbatches, StepRows
from spoton.tuning.record import write_record

OUT = Path(__file__).parents[1] / "docs" / "experiments" / "int8.json"
"""Of a processor with AVX2 alone; `--out` names another record."""
TASKS = ("sst2", "ag_news", "mnli")
ROWS, LIMIT, BATCH = 200, 96, 8
INT8 = ("int8", "int8 but down-projections")
VARIANTS = ("float32", "bfloat16", *INT8)
_PLAIN = frozen_layers._Projected


class _Projected(torch.autograd.Function):
    """The projections of `frozen_layers` with int8 products forward and float32 backward."""

    narrowing = True
    kept: dict[int, tuple[Tensor, Any]] = {}  # noqa: RUF012  # the weights of the one model of this process

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
        """`[T, D]` -> `[T, E]` for each layer."""
        ctx.weights = [layer.weight for layer in layers]
        return tuple(_Projected.product(x, layer) for layer in layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Returns the sum over all layers."""
        pairs = zip(grads, ctx.weights, strict=True)
        return torch.stack([grad @ weight for grad, weight in pairs]).sum(dim=0), None

    @classmethod
    def product(cls, x: Tensor, layer: nn.Linear) -> Tensor:
        """Returns the output of one layer for `[T, D]`: `[T, E]`."""
        if not cls.narrowing and layer.in_features > layer.out_features:
            return functional.linear(x, layer.weight, layer.bias)
        if id(layer.weight) not in cls.kept:
            weight = layer.weight.detach()
            scales = weight.abs().amax(dim=1).double() / 127
            zeros = torch.zeros(len(weight), dtype=torch.long)
            whole = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            cls.kept[id(layer.weight)] = (layer.weight, torch.ops.quantized.linear_prepack(whole, layer.bias))
        largest = x.abs().amax(dim=1, keepdim=True).clamp_min_(torch.finfo(x.dtype).tiny)
        found: Tensor = torch.ops.quantized.linear_dynamic(x / largest, cls.kept[id(layer.weight)][1])
        return found.mul_(largest)


@contextmanager
def variant(name: str) -> Iterator[None]:
    """Runs the projections of all layers in this variant."""
    _Projected.narrowing = name == "int8"
    frozen_layers._Projected = _Projected if name in INT8 else _PLAIN  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        frozen_layers._Projected = _PLAIN  # type: ignore[misc]


def gradient(model: FrozenModel, prompt: SoftPrompt, task: Task) -> Tensor:
    """Returns the gradient `[P, D]` of the mean loss of the first training rows."""
    rows = encode_for_training(
        model, task.train[:BATCH], end=False, prompt_length=len(prompt.value), max_input_tokens=LIMIT,
        labels=task.labels,
    )  # fmt: skip
    value = prompt.value.clone().requires_grad_()
    Microbatches(model).gradients([value], [StepRows.of(rows.batch(list(range(BATCH))), "examples")])
    assert value.grad is not None
    return value.grad.flatten()


def measure(data_dir: Path | None) -> dict[str, Any]:
    """Returns scores, CPU seconds and gradients of all variants, by task, and the bytes of the weights."""
    library, machine = starter_library(), describe(allocator_tuned=False)
    models = {"float32": load_model(dtype="float32")}
    if (own := load_model()).network.dtype == torch.bfloat16:
        models["bfloat16"] = own
    for model in models.values():
        engine_for(model)  # its check of exactness would refuse int8
    found = []
    for name in TASKS:
        task = load_task(name, data_dir=data_dir, form="natural").limited(
            train=BATCH, validation=10, test=ROWS
        )
        prompt, exact = library.get(name), None
        for kind in (*models, *INT8):
            model = models.get(kind, models["float32"])
            with variant(kind):
                grad = gradient(model, prompt, task)  # also packs the weights
                began = time.process_time()
                scored = evaluate(model, prompt, task.test, task, max_input_tokens=LIMIT)
                seconds = time.process_time() - began
            exact = grad if exact is None else exact
            found.append({
                "task": name, "variant": kind, "accuracy": scored.score, "cpu_seconds": seconds,
                "gradient_cosine": float(functional.cosine_similarity(grad, exact, dim=0)),
            })  # fmt: skip
            print(found[-1], file=sys.stderr, flush=True)
    weights = {kind: weight_bytes(models["float32"], kind) for kind in (*models, *INT8)}
    return {"machine": machine, "rows": ROWS, "weight_bytes": weights, "results": found}


def weight_bytes(model: FrozenModel, kind: str) -> int:
    """Returns the bytes of the layers' projections in a variant, with the scales of int8; embeddings are left out."""
    size = 0
    for name, layer in model.network.named_modules():
        if not isinstance(layer, nn.Linear) or "lm_head" in name:
            continue
        whole = kind in ("float32", "bfloat16") or (
            kind == INT8[1] and layer.in_features > layer.out_features
        )
        width = {"bfloat16": 2}.get(kind, 4) if whole else 1
        size += layer.weight.numel() * width + (0 if whole else 4 * layer.out_features)
    return size


def table(document: dict[str, Any]) -> str:
    """Returns the results on one kind of processor as Markdown."""
    lines = [
        "| weights | " + " | ".join(TASKS) + " | speed, forward | cosine of gradients | weights, MB |",
        "|---|" + "--:|" * 6,
    ]
    plain = {one["task"]: one for one in document["results"] if one["variant"] == "float32"}
    for kind in VARIANTS:
        own = [one for one in document["results"] if one["variant"] == kind]
        if not own:
            continue
        scores = " | ".join(f"{one['accuracy']:.1f}" for one in own)
        faster = statistics.geometric_mean(
            plain[one["task"]]["cpu_seconds"] / one["cpu_seconds"] for one in own
        )
        alike = [one["gradient_cosine"] for one in own]
        size = document["weight_bytes"][kind] / 1e6
        lines.append(
            f"| {kind} | {scores} | {faster:.2f} | {min(alike):.2f} to {max(alike):.2f} | {size:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder with <task>/train.jsonl")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of this process")
    parser.add_argument("--out", type=Path, default=OUT, help="the record")
    parser.add_argument("--table", action="store_true", help="print the table of what was measured")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(arguments.threads)
        torch.backends.quantized.engine = "onednn"
        warnings.filterwarnings(
            "ignore", category=UserWarning
        )  # quantized tensors are announced as deprecated
        write_record(arguments.out, measure(arguments.data_dir))
    sys.stdout.write(table(json.loads(arguments.out.read_text())) + "\n")


if __name__ == "__main__":
    main()
