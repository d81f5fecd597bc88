"""Where a step of spoton spends its time, by operator: explains the distance to the matrix products alone.

python -m experiments.bench.profile
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.bench.arms import frozen, make_arm
from experiments.bench.machine import keep_freed_memory
from experiments.bench.names import SMOLLM, SPOTON, T5
from experiments.bench.texts import folded, read_texts
from spoton.tuning.record import write_record

RESULT = Path(__file__).parents[2] / "docs" / "experiments" / "profile.json"
_STEPS = 3
# The profiler's own records break up the heap, and pages of fresh memory then take up to 15 % of the first passes.
_PASSES, _FEW_FAULTS = 8, 100

# Operators by purpose; an operator that is not named here is "other".
KINDS = {
    "matrix products of the weights": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::linear"),
    "matrix products of attention": ("aten::bmm", "aten::baddbmm", "aten::baddbmm_"),
    "softmax and its gradient": ("aten::_softmax", "aten::_softmax_backward_data"),
    "activations": ("aten::silu", "aten::silu_backward", "aten::sigmoid_", "aten::tanh", "aten::tanh_backward"),
    "multiplications and sums (norms, gates, positions, residuals)": (
        "aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::addcmul", "aten::addcmul_", "aten::sum",
        "aten::linalg_vector_norm", "aten::div_", "aten::div", "aten::rsqrt_", "aten::sub", "aten::neg", "aten::pow",
    ),
    "copies and changes of type": ("aten::copy_", "aten::cat", "aten::clone", "aten::fill_", "aten::zero_"),
}  # fmt: skip


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Returns each kind of operator's share of processor time, largest first, in a pass that reuses its memory."""
    work()
    for _ in range(_PASSES):
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(_STEPS):
                work()
        if resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults <= _FEW_FAULTS * _STEPS:
            break
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(times.values())
    named = {kind: sum(times.pop(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
    named["other (Python, dispatch, indexing)"] = sum(times.values()) / total
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def main() -> None:
    """Profiles training and scoring at P=100 and batch 16 on texts of middle length, and prints a table."""
    keep_freed_memory()
    texts = read_texts(frozen(SPOTON, SMOLLM))
    batch = texts.batches(16, 0)[1]
    decoder, t5 = make_arm(SPOTON, SMOLLM, 100), make_arm(SPOTON, T5, 100)
    config = frozen(SPOTON, T5).network.config
    (folded_batch,) = folded([batch], config.vocab_size, config.eos_token_id)
    found = {
        f"{SMOLLM}, training": shares(lambda: decoder.step(batch)),
        f"{SMOLLM}, scoring": shares(lambda: decoder.scores([batch] * 12, texts.labels)),
        f"{T5}, training": shares(lambda: t5.step(folded_batch)),
    }
    write_record(RESULT, found | {"threads": torch.get_num_threads()})
    lines = [["", *found], ["---"] * (len(found) + 1)]
    lines += [[kind, *(f"{one[kind]:.0%}" for one in found.values())] for kind in next(iter(found.values()))]
    sys.stdout.write("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")


if __name__ == "__main__":
    main()
