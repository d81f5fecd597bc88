"""Threads that wait for each other: the command makes them sleep soon, in time and unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_the_command_sets_it_before_torch_is_there(chosen: dict[str, str], expected: str) -> None:
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", STARTED], env=others | chosen, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == [expected, "False"], done.stderr
