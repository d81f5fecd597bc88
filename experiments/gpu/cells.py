"""Runs studies and experiments whose cells resume, side by side on one GPU, until a time is over.

A step of a small model leaves most of a GPU idle, so several processes share it, each with many prompts in a pass.
Every job is `name:processes`, or `study=FOLDER:workers`. At the end all get an interrupt, which keeps what they have.

    python -m experiments.gpu.cells --minutes 10 --data-dir data study=docs/studies/eighteen_sources:6 sweep:3 methods:2
    python -m experiments.gpu.cells --minutes 10 --data-dir data small:6 related:1 --out build/cells
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
METHODS = "--tasks sick,scitail,mpqa,tweet_eval_offensive --steps 60 --validation 100 --test 400".split()
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "sweep": ("recipe_sweep", "--together", "34", "--memory-share", "0.065"),
    "related": ("related_source", "--together", "16", "--memory-share", "0.05"),
    "methods": ("transfer_methods", *METHODS, "--memory-share", "0.04"),
    "small": ("small_tasks", "--memory-share", "0.04"),
}
"""Name of a job -> its module and options. Shares of the memory are what a process took on an H100, rounded up."""
TOGETHER = "18"
"""Cells of a study that share a pass: eight rows each fill a worker with 3 to 5 GB (SmolLM2-135M, bfloat16)."""
GRACE = 30.0
"""Seconds that an interrupted process has to keep its state."""


def commands_of(job: str, data_dir: str, out: Path | None) -> list[list[str]]:
    """Returns the commands of a job, one for each process.

    Args:
        job: `name:processes`, or `study=FOLDER:workers`.
        data_dir: Folder of the rows.
        out: Folder for the cells of experiments; None: where their results are kept in the repository.

    Raises:
        SystemExit: There is no such job.
    """
    name, _, number = job.rpartition(":")
    if not number.isdigit() or not int(number):
        raise SystemExit(f"{job!r} is not a job: expected name:processes, such as sweep:3.")
    if name.startswith("study="):
        folder = name.removeprefix("study=")
        options = f"--device cuda --together {TOGETHER} --workers {number}".split()
        return [[sys.executable, "-m", "spoton", "study", "run", folder, *options]]
    if name not in EXPERIMENTS:
        raise SystemExit(
            f"There is no job {name!r}; there are {', '.join(sorted(EXPERIMENTS))} and study=FOLDER."
        )
    module, *options = EXPERIMENTS[name]
    cells = [] if out is None else ["--cells", str(out / module)]
    command = [sys.executable, "-m", f"experiments.{module}", "--data-dir", data_dir, "--threads", "1"]
    return [[*command, *options, *cells]] * int(number)


def run(commands: Sequence[Sequence[str]], seconds: float, data_dir: str, logs: Path) -> list[int]:
    """Runs commands side by side, interrupts those that are left after some seconds, and returns their exit codes."""
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "SPOTON_DATA_DIR": data_dir, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }  # fmt: skip
    end = time.monotonic() + seconds
    running = []
    for number, command in enumerate(commands):
        log = (logs / f"{number:02}.log").open("wb")  # closed with the process
        running.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        )
        log.close()
    for signal_, until in ((None, end), (signal.SIGINT, end + GRACE), (signal.SIGKILL, end + 2 * GRACE)):
        for process in [one for one in running if signal_ is not None and one.poll() is None]:
            os.killpg(process.pid, signal_)
        while time.monotonic() < until and any(process.poll() is None for process in running):
            time.sleep(0.2)
    return [process.wait() for process in running]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the jobs; returns 1 if a process failed that was not interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="+", help="name:processes, or study=FOLDER:workers")
    parser.add_argument("--minutes", type=float, default=10, help="until all are interrupted (default: 10)")
    parser.add_argument("--data-dir", required=True, help="folder with <task>/train.jsonl")
    parser.add_argument(
        "--out", type=Path, help="folder for the cells of experiments; not given: docs/experiments"
    )
    parser.add_argument("--logs", type=Path, default=ROOT / "build" / "cells", help="folder of the logs")
    given = parser.parse_args(arguments)
    commands = [one for job in given.jobs for one in commands_of(job, given.data_dir, given.out)]
    codes = run(commands, 60 * given.minutes, given.data_dir, given.logs)
    for number, (code, command) in enumerate(zip(codes, commands, strict=True)):
        last = (given.logs / f"{number:02}.log").read_text(errors="replace").splitlines()[-1:]
        print(f"{code:4}  {' '.join(command[1:5])}  {''.join(last)[:120]}")
    return int(any(code not in (0, 130, -signal.SIGINT) for code in codes))


if __name__ == "__main__":
    raise SystemExit(main())
