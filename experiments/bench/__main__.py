"""Runs the benchmark, or puts its result into the documentation. See the package's docstring."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from experiments.bench import machine, report
from experiments.bench.names import COMPILED, SMOLLM, T5
from spoton.tuning.record import write_record

CHECKOUT = Path(__file__).parents[2]
PAGE, PICTURE = CHECKOUT / "docs" / "performance.md", CHECKOUT / "docs" / "images" / "bench.png"
NO_COMPILER = f"{COMPILED} was left out: this version of `load_model` has no option `compile`."
NOT_QUIET = (
    "The machine was not quiet: ratios of wall time say little; compare the CPU seconds, or measure again."
)
QUIET = 0.3  # processors that other processes may keep busy before the start
LOSSES_DIFFER = 1


def main() -> int:
    """Parses the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="spoton against PEFT: speed, memory and the limit.",
    )
    parser.add_argument("--rounds", type=int, help="rounds of all arms (default: 3; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="P=100 and batch 16 only")
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "build" / "bench", help="folder of the result")
    parser.add_argument("--write-docs", action="store_true", help="run nothing; write docs/performance.md")
    arguments = parser.parse_args()
    if arguments.write_docs:
        return write_docs(arguments.out)
    try:
        import peft  # noqa: F401  # here only to say what to do
    except ImportError:
        sys.stderr.write('PEFT is not installed. Run `make bench`, or: pip install -e ".[peft]"\n')
        return 2
    rounds = arguments.rounds or (2 if arguments.quick else 3)
    return run(arguments.out, rounds=rounds, quick=arguments.quick, threads=arguments.threads)


def run(out: Path, *, rounds: int, quick: bool, threads: int) -> int:
    """Measures everything; writes the result so far after every part."""
    tuned = machine.keep_freed_memory()  # before anything large is allocated
    if threads:
        torch.set_num_threads(threads)
    from experiments.bench import memory
    from experiments.bench.arms import arm_names, can_compile, frozen
    from experiments.bench.names import SPOTON
    from experiments.bench.rounds import Configuration, Contest
    from experiments.bench.texts import read_texts

    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="transformers"
    )  # between PEFT and transformers
    transformers_logging.set_verbosity_error()  # no warning about PEFT's dropped position ids at every step
    sizes = [(100, 16)] if quick else [(100, 16), (100, 32), (20, 16), (20, 32)]
    plan = [Configuration(SMOLLM, work, *size) for size in sizes for work in ("training", "scoring")]
    plan.append(Configuration(T5, "training", 100, 16))
    peaks = [(name, *size) for size in sizes if size[0] == 100 for name in arm_names(SMOLLM)]
    progress = _Progress(sum(c.cost * rounds for c in plan) + sum(_MEMORY_COST for _ in peaks))
    texts = read_texts(frozen(SPOTON, SMOLLM))
    result: dict[str, Any] = {
        "finished": False,
        "date": date.today().isoformat(),
        "machine": machine.describe(allocator_tuned=tuned),
        "texts": texts.describe(),
        "configurations": [],
        "memory": [],
        "notes": [] if can_compile() else [NO_COMPILER],
    }
    if result["machine"]["load_before"] > QUIET:
        progress.tell(f"others are at work here ({result['machine']['load_before']}): times will spread")
        result["notes"].append(NOT_QUIET)
    wrong: list[str] = []
    for configuration in plan:
        contest = Contest(configuration, texts, progress.tell)
        for name, loss in contest.losses.items():
            progress.tell(f"{configuration.title}: loss {loss:.6f} {name} ({contest.dtypes[name]})")
        wrong += [f"{configuration.title}: {problem}" for problem in contest.problems]
        found = []
        for one in contest.rounds(rounds):
            found.append(one)
            progress.advance(configuration.cost, f"{configuration.title}, round {len(found)} of {rounds}")
        result["configurations"].append(contest.record(found))
        write(result, out)
    del contest
    frozen.cache_clear()
    gc.collect()
    machine.give_back_freed_memory()  # the children need it
    if not memory.can_measure():
        result["notes"].append("Peak memory was not measured: it needs Linux's /proc/self/clear_refs.")
        peaks = []
    for name, length, batch_size in peaks:
        size = memory.peak_of(name, length, batch_size, torch.get_num_threads())
        entry = {"length": length, "batch_size": batch_size}
        if not result["memory"] or result["memory"][-1].items() & entry.items() != entry.items():
            result["memory"].append(entry | {"bytes": {}})
        result["memory"][-1]["bytes"][name] = size
        progress.advance(_MEMORY_COST, f"memory of {name}, P={length}, batch {batch_size}")
        write(result, out)
    result["finished"] = True
    result["minutes"] = round(progress.minutes, 1)
    write(result, out)
    sys.stdout.write(report.tables(result) + "\n")
    for problem in wrong:
        sys.stderr.write(f"The arms do not compute the same thing. {problem}\n")
    return LOSSES_DIFFER if wrong else 0


def write(result: dict[str, Any], out: Path) -> None:
    """Writes the result so far as numbers, as Markdown and as a picture."""
    write_record(out / "result.json", result)
    (out / "result.md").write_text(f"{report.tables(result)}\n\n{report.machine_text(result)}\n")
    report.write_picture(result, out / "result.png")


def write_docs(out: Path) -> int:
    """Fills the block of docs/performance.md from a finished result."""
    path = out / "result.json"
    if not path.exists():
        sys.stderr.write(f"There is no {path}. Run `make bench` first.\n")
        return 2
    result = json.loads(path.read_text())
    if not result["finished"]:
        sys.stderr.write(f"{path} is of a run that was stopped. Run `make bench` to the end first.\n")
        return 2
    shutil.copyfile(out / "result.png", PICTURE)
    picture = f"![Examples a second of all arms](images/{PICTURE.name})"
    block = f"{report.machine_text(result)}\n\n{report.tables(result)}\n\n{picture}"
    PAGE.write_text(report.filled(PAGE.read_text(), block))
    return 0


# Cost of a child process with one arm, in the units of `Configuration.cost`.
_MEMORY_COST = 3000.0


class _Progress:
    """Prints lines with the time left, estimated from the share of the work that is done."""

    def __init__(self, total: float) -> None:
        self._start, self._done, self._total = time.monotonic(), 0.0, total

    @property
    def minutes(self) -> float:
        """Returns the minutes since the start."""
        return (time.monotonic() - self._start) / 60

    def advance(self, cost: float, what: str) -> None:
        """Counts a part as done."""
        self._done += cost
        left = self.minutes * (self._total - self._done) / self._done
        self.tell(f"{what}; about {left:.1f} min left")

    def tell(self, what: str) -> None:
        """Prints one line."""
        sys.stderr.write(f"[{self.minutes:5.1f} min] {what}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
