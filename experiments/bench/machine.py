"""The machine: how it allocates memory for the benchmark, and what to record next to the numbers."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

# Numbers of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
# Processor flags that decide the speed of matrix products.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory instead of returning it to the system; returns True if that is possible.

    Otherwise every large activation costs page faults at its next use, up to a quarter of the time of a PEFT step.
    An expert sets MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_ in the environment. This does the same from inside
    the process, for all arms alike.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Returns free memory to the system, so that resident memory is memory in use."""
    if sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def load() -> float:
    """Returns how many processors are busy with something else, over two seconds in which this process sleeps."""
    return round(psutil.cpu_percent(interval=2.0) / 100 * (os.cpu_count() or 1), 2)


def describe(*, allocator_tuned: bool) -> dict[str, Any]:
    """Returns processor, threads and versions, as plain values."""
    packages = ("spoton", "torch", "transformers", "peft", "numpy")
    return {
        "processor": _processor(),
        "flags": _flags(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "allocator": "glibc, freed memory kept" if allocator_tuned else "as the system has it",
        "load_before": load(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }


def _cpuinfo(*keys: str) -> str:
    """Returns the first value of one of these keys, or an empty string."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _flags() -> list[str]:
    there = _cpuinfo("flags", "Features").split()
    return [flag for flag in _FLAGS if flag in there]
