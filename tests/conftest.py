"""What holds for all tests."""

from __future__ import annotations

import os
import random

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

import tests.checked

# How long an example takes depends on what else the machine does; `timeout` catches a test that hangs.
# The same examples in every run, so that a commit either passes or fails; `--hypothesis-profile search` draws others.
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.register_profile("same examples", deadline=None, derandomize=True)
hypothesis.settings.load_profile("same examples")

# Calls of functions in these rooms whose signature speaks of shapes are checked, see `spoton.shapes`.
_ROOMS = [f"spoton.{room}" for room in ("prompts", "models", "evaluation", "transfer")]
install_import_hook(_ROOMS, f"{tests.checked.__name__}.check")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread, here and in the processes that tests start: bit-identical sums need the same number of them."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same numbers for the fixtures of a test, whichever tests ran before it."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """The same numbers for a test, whether it is the first to need a shared fixture or not."""
    _seed()


def _seed() -> None:
    """Seeds what draws without a seed: networks that transformers initialises, and the items that beartype checks."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
