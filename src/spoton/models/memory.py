"""Free memory on a model's device, and evaluation batches that fit into it.

What a training step keeps is measured in `spoton.tuning.microbatches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from spoton.models.frozen import FrozenModel

# An evaluation batch takes at most this share of the free memory, and at most this many rows, on a CPU and elsewhere:
# on a CPU, more gain nothing (docs/performance.md).
_SHARE_OF_FREE = 0.25
_MOST_ROWS = 32
_MOST_ROWS_ELSEWHERE = 512
# Activations of one layer for one token, in multiples of the model's width: queries, keys, values, the three of the
# feed-forward layer, norms and sums.
_WIDTHS = 24


def free_bytes(device: torch.device) -> int:
    """Returns the memory of a device in bytes that this process can still get.

    On CUDA that includes what PyTorch holds in reserve, up to the share that the process may take
    (`torch.cuda.set_per_process_memory_fraction`). On a CPU it ends at what the process's container may still use.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        used = torch.cuda.memory_allocated(device)
        # Several processes on one GPU fill it with their reserves: without its own, each would find nothing free.
        free += torch.cuda.memory_reserved(device) - used
        if hasattr(torch.cuda, "get_per_process_memory_fraction"):  # PyTorch 2.8
            free = min(free, int(total * torch.cuda.get_per_process_memory_fraction(device)) - used)
        return max(0, free)
    return min(int(psutil.virtual_memory().available), *_free_in_groups())


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether memory ran out: an error of CUDA, of Python, or of PyTorch's CPU allocator."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def batches_by_length(model: FrozenModel, lengths: Sequence[int], repeated: int = 0) -> list[list[int]]:
    """Groups rows of similar length into evaluation batches, as large as memory allows.

    Args:
        model: The model that evaluates them.
        lengths: Tokens of each row, its target or labels included.
        repeated: Tokens of a prompt that is repeated before every row.
    """
    most = _MOST_ROWS if model.device.type == "cpu" else _MOST_ROWS_ELSEWHERE
    width = model.dim * _WIDTHS * model.embeddings.element_size()
    heads = getattr(model.network.config.get_text_config(), "num_attention_heads", None) or 1
    room = _SHARE_OF_FREE * free_bytes(model.device)
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        tokens = lengths[row] + repeated
        cost = (
            tokens * width + heads * tokens * tokens * model.embeddings.element_size()
        )  # the last row is the longest
        if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * cost > room:
            batches.append([])
        batches[-1].append(row)
    return batches


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Returns how much each control group with a limit may still use; cached files count as free.

    Args:
        root: Where control groups are mounted.
        own: The kernel's list of this process's groups, one per line: `0::/path` (version 2) or `N:memory:/path`.
    """
    found: list[int] = []
    for line in _text(own).splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            names, top = ("memory.max", "memory.current", "inactive_file "), root
        elif "memory" in kinds.split(","):
            names, top = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
                root / "memory",
            )
        else:
            continue
        group = top / path.strip("/")
        # In a container the path is often the host's, and the mounted root is the group itself.
        for folder in {top, group, *(one for one in group.parents if top in one.parents)}:
            limit, used = _text(folder / names[0]).strip(), _text(folder / names[1]).strip()
            if limit.isdigit() and used.isdigit():
                cached = sum(
                    int(entry.removeprefix(names[2]))
                    for entry in _text(folder / "memory.stat").splitlines()
                    if entry.startswith(names[2])
                )
                found.append(max(0, int(limit) - int(used) + cached))
    return found


def _text(path: Path) -> str:
    """Returns the content of a kernel file; an empty string if it does not exist."""
    try:
        return path.read_text()
    except OSError:
        return ""
