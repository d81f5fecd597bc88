"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread, as in the processes that tests start: bit-identical sums need the same number of them."""
    torch.set_num_threads(1)
