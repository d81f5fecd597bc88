"""How long a thread waits awake for the others of its matrix product."""

from __future__ import annotations

import os

SPINS = 1_000
"""Turns of a waiting thread before it sleeps: libgomp's own number where threads outnumber cores.

Measured: docs/performance.md, "On a busy machine".
"""


def share_busy_cores() -> None:
    """Makes waiting threads sleep soon, so that another program on the same cores does not slow this one severalfold.

    Works only before torch is imported: its OpenMP (libgomp, on Linux) reads the variable once. Does nothing if the
    user has chosen how threads wait. https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
