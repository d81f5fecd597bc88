"""Peak memory of a training step above the model: one child process for each arm.

Saved activations alone would flatter an arm that makes large temporaries. So this measures what the system sees: the
highest resident size during the steps, minus the resident size before them. Before the steps, the model is loaded,
every weight is touched, one step on two short rows has loaded libraries and kernels, and free memory is returned. The
peak is Linux's VmHWM. It is reset through `/proc/self/clear_refs` before the steps, since loading a model may need more
memory than a step.

The allocator keeps the system's settings, unlike in the time measurements. Keeping freed memory is faster, but leaves
holes, and would charge PEFT a third more than it needs.

The benchmark runs `python -m experiments.bench.memory ARM LENGTH BATCH THREADS`, which prints bytes.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path

from experiments.bench import machine

CHECKOUT = Path(__file__).parents[2]
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def can_measure() -> bool:
    """Whether this system records the peak and can reset it."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def peak_of(arm: str, length: int, batch_size: int, threads: int) -> int:
    """Returns the bytes that training steps of an arm need above its model, measured in a separate process.

    Raises:
        RuntimeError: The child failed; the message holds the end of its output.
    """
    command = [
        sys.executable,
        "-m",
        "experiments.bench.memory",
        arm,
        *map(str, (length, batch_size, threads)),
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {arm} could not be measured: {done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def main(name: str, length: int, batch_size: int) -> int:
    """Measures in this process."""
    from experiments.bench.arms import frozen, make_arm
    from experiments.bench.names import COMPILED, SMOLLM
    from experiments.bench.texts import read_texts
    from spoton.models.engine import Batch

    model = frozen(name, SMOLLM)
    batches = read_texts(model).batches(batch_size, 0)
    arm = make_arm(name, SMOLLM, length)
    for weight in model.network.parameters():
        weight.sum()  # weights stay in a mapped file until they are read
    if name == COMPILED:
        for batch in batches:  # a step does not include the compiler's own memory
            arm.step(batch)
    arm.step(Batch(batches[0].inputs[:2], batches[0].targets[:2]))
    arm.reset()
    gc.collect()
    machine.give_back_freed_memory()
    _RESET.write_text("5")
    before = _resident("VmRSS")
    for batch in batches[:1] if arm.pads_to else batches:
        arm.step(batch)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    import torch

    torch.set_num_threads(int(sys.argv[4]))
    sys.stdout.write(f"{main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))}\n")
