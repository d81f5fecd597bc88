"""Threads: the waiting ones sleep soon, and a container's quota limits them, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from spoton.cli.threads import keep_within_quota

STARTED = """
import os, sys
class Told:
    def find_spec(self, name, *_):
        if name == "spoton.cli.app":
            print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules, flush=True)
            sys.exit()
sys.meta_path.insert(0, Told())
from spoton.cli.start import main
main()
"""


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_the_command_sets_it_before_torch_is_there(chosen: dict[str, str], expected: str) -> None:
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", STARTED], env=others | chosen, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == [expected, "False"], done.stderr


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "expected"), [(None, 1), ("2", 2)])
def test_a_quota_limits_threads_that_nobody_asked_for(
    asked: str | None, expected: int, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib takes it for a quota of one processor
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    keep_within_quota()
    assert torch.get_num_threads() == expected
