"""How the workers of a study share this machine: its cores, or its GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from joblib import cpu_count


class Share(NamedTuple):
    """The share of this machine that each worker gets.

    Attributes:
        at_once: How many workers compute at a time; more workers take turns, which saves no time.
        threads: Threads per worker.
    """

    at_once: int
    threads: int

    @contextmanager
    def threads_taken(self) -> Iterator[None]:
        """Computes with the threads of one worker until the block ends, to measure what a worker would need."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def own_cores() -> list[int]:
    """Returns the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def share_of(workers: int, *, on_gpu: bool) -> Share:
    """Returns the share of each worker, as `run --workers` divides the machine.

    Args:
        workers: Number of workers.
        on_gpu: Whether they compute on GPUs.
    """
    if workers == 1:  # cells run in this process, with the threads that it has
        return Share(1, torch.get_num_threads())
    cores = int(cpu_count())
    at_once = max(1, torch.cuda.device_count()) if on_gpu else cores
    return Share(min(workers, at_once), threads_of_worker(max(1, cores // workers), workers))


def threads_of_worker(cores: int, workers: int) -> int:
    """Returns the number of threads for a worker; OMP_NUM_THREADS decides if it is set.

    Args:
        cores: Number of cores that the worker may run on.
        workers: Number of workers, which share the processors that this process may use, by its affinity and by the
            quota of its container.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, min(cores, -(-int(cpu_count()) // workers)))
