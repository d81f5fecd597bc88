"""Seconds on a GPU: the host waits for the device before it reads its clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def clocked(work: Callable[[], object]) -> float:
    """Returns the seconds of some work, including the device's part."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began
