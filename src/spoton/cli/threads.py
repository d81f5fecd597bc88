"""How many threads share a matrix product, and how long those that are done first wait awake for the others."""

from __future__ import annotations

import os

SPINS = 3_000
"""Turns of a waiting thread before it sleeps; libgomp takes 1,000 where threads outnumber cores, which is slower alone.

Measured: docs/performance.md, "On a busy machine".
"""


def share_busy_cores() -> None:
    """Makes waiting threads sleep soon, so that another program on the same cores does not slow this one severalfold.

    Works only before torch is imported: its OpenMP (libgomp, on Linux) reads the variable once. Does nothing if the
    user has chosen how threads wait. https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def keep_within_quota() -> None:
    """Lowers the number of torch's threads to the processors' worth of time that this process may use.

    A container may be limited to two processors of sixty-four (`docker run --cpus 2`); torch counts them all, and the
    kernel then stops every thread for most of the time. Does nothing if OMP_NUM_THREADS is set.
    """
    import torch

    from spoton.study.plan.machine import threads_of_worker

    torch.set_num_threads(threads_of_worker(torch.get_num_threads(), workers=1))
