"""How much memory is free where a model lies, and what to do when it was not enough.

Not here: what a step keeps (``spoton.tuning.microbatches``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from spoton.models.frozen import FrozenModel

# Rows of an evaluation that go through the model together: as many as this share of the free memory holds, and at most
# so many; beyond that a processor gains nothing (docs/performance.md).
_SHARE_OF_FREE = 0.25
_MOST_ROWS = 32
_MOST_ROWS_ELSEWHERE = 256
# Numbers that a layer makes of one token at once, in widths of its input: queries, keys, values, the feed-forward
# layer's three, norms and sums.
_WIDTHS = 24


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; on a CPU no more than what the process' container may still take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), *_free_in_groups())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's own, Python's, or that of PyTorch's allocator for CPUs."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def batches_by_length(model: FrozenModel, lengths: Sequence[int], repeated: int = 0) -> list[list[int]]:
    """Rows in batches of like length for an evaluation, as large as memory allows.

    Args:
        model: Through which they go.
        lengths: Tokens of each row, with all that stands behind it.
        repeated: Tokens of a prompt that stands before every row.
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
        )  # the longest comes last
        if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * cost > room:
            batches.append([])
        batches[-1].append(row)
    return batches


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each control group of this process with a limit may still take; files in the cache can be given back.

    Args:
        root: Where control groups are mounted.
        own: Where the kernel lists those of this process, one a line: ``0::/path`` (version 2) or ``N:memory:/path``.
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
        # In a container the path is often that of the host, and the mounted root is the group itself.
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
    """The content of a file of the kernel, or nothing where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
