"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread, here and in the processes that tests start: bit-identical sums need the same number of them."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
