"""Runs what needs a GPU, in at most 25 minutes: tests of exactness, costs of a pass, PEFT's, and a small study.

    python -m experiments.gpu
    python -m experiments.gpu --minutes 10 --out build/gpu

It needs the repository and the embedded model. Once the model is there, it needs no network. Each stage is a separate
process with a time limit. After each stage, the results so far are written to `result.json`, and as tables to
`result.md`.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.gpu.clock import clocked
from experiments.gpu.passes import measure

ROOT = Path(__file__).parents[2]
MINUTES = 25.0
NO_DEVICE = 2
REFUSAL = (
    "There is no CUDA device here: torch.cuda.is_available() is false. Run this on a machine with one, with a build of "
    "PyTorch for CUDA; `make bench` measures processors.\n"
)
SIZES = ((100, 16), (100, 32), (20, 16), (20, 32))
ROUNDS = 5


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        name: `tests`, `passes`, `bench` or `study`.
        most: Minutes that it may take.
        least: It does not start with fewer minutes left.
    """

    name: str
    most: float
    least: float


STAGES = (Stage("tests", 10, 1), Stage("passes", 3, 1), Stage("bench", 8, 2), Stage("study", 12, 4))


def minutes_for(stage: Stage, left: float, later: Sequence[Stage]) -> float:
    """Returns the minutes of a stage, so that later stages can start as well; 0 if it does not start.

    Args:
        stage: The stage.
        left: Minutes that are left.
        later: The stages after it. If there is too little time for all, the last ones get none.
    """
    for other in later:
        if left - stage.least - other.least < 0:
            break
        left -= other.least
    found = min(stage.most, left)
    return found if found >= stage.least else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all stages, or one; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="for all stages together (default: 25)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder of the result")
    parser.add_argument("--stage", choices=["passes", "bench"], help="only this one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the benchmark (default: {ROUNDS})")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write(REFUSAL)
        return NO_DEVICE
    given.out.mkdir(parents=True, exist_ok=True)
    if given.stage == "passes":
        measure(given.out)
    elif given.stage == "bench":
        bench(given.out, given.rounds)
    else:
        return run_all(given.out, given.minutes)
    return 0


def run_all(out: Path, minutes: float) -> int:
    """Runs every stage that there is time for; returns 1 if one of them failed."""
    began = time.monotonic()
    result: dict[str, Any] = {"device": device(), "stages": {}, "passes": [], "bench": [], "study": None}
    for number, stage in enumerate(STAGES):
        left = minutes - (time.monotonic() - began) / 60
        given = minutes_for(stage, left, STAGES[number + 1 :])
        if not given:
            result["stages"][stage.name] = {"state": "not begun", "minutes_left": round(left, 1)}
            continue
        sys.stderr.write(f"{stage.name}: at most {given:.1f} minutes\n")
        result["stages"][stage.name] = ran(stage.name, out, given)
        result |= {
            name: json.loads((out / f"{name}.json").read_text())
            for name in ("passes", "bench", "study")
            if (out / f"{name}.json").is_file()
        }
        write(result, out)
    sys.stdout.write(tables(result) + "\n")
    return int(any(one["state"] == "failed" for one in result["stages"].values()))


def command_of(stage: str, out: Path) -> list[list[str]]:
    """Returns the commands of a stage."""
    python, spoton = sys.executable, [sys.executable, "-m", "spoton"]
    if stage == "tests":
        report = f"--junitxml={out / 'tests.xml'}"
        return [[python, "-m", "pytest", "-m", "gpu", "-q", "-o", "timeout=0", report, "tests"]]
    if stage in ("passes", "bench"):
        return [[python, "-m", "experiments.gpu", "--stage", stage, "--out", str(out)]]
    study = str(out / "study")
    return [
        [*spoton, "study", "new", study, "--preset", "quick"],
        [*spoton, "study", "run", study, "--device", "cuda"],
    ]


def ran(stage: str, out: Path, minutes: float) -> dict[str, Any]:
    """Runs a stage within its time; writes its output to a file of its name."""
    began, state, code = time.monotonic(), "finished", 0
    with (out / f"{stage}.log").open("w", encoding="utf-8") as log:
        for command in command_of(stage, out):
            left = 60 * minutes - (time.monotonic() - began)
            try:
                code = subprocess.run(
                    command, cwd=ROOT, stdout=log, stderr=log, timeout=max(1.0, left)
                ).returncode
            except subprocess.TimeoutExpired:
                state = "out of time"
                break
            if code:
                state = "failed"
                break
    if stage == "study":
        status = [sys.executable, "-m", "spoton", "study", "status", str(out / "study"), "--json"]
        done = subprocess.run(status, cwd=ROOT, capture_output=True, text=True)
        if done.stdout.strip():
            (out / "study.json").write_text(done.stdout)
    last = (out / f"{stage}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
    return {
        "state": state,
        "code": code,
        "seconds": round(time.monotonic() - began, 1),
        "said": "".join(last),
    }


def bench(out: Path, rounds: int) -> None:
    """Times a step and a scoring pass of every arm, in turns; writes the result after every size."""
    from experiments.bench.arms import frozen, make_arm
    from experiments.bench.names import DOCUMENTED, SMOLLM, SPOTON, TUNED
    from experiments.bench.ratios import disagreeing
    from experiments.bench.texts import read_texts

    texts = read_texts(frozen(SPOTON, SMOLLM, "cuda"))
    found: list[dict[str, Any]] = []
    for length, size in SIZES:
        arms = {name: make_arm(name, SMOLLM, length, "cuda") for name in (DOCUMENTED, TUNED, SPOTON)}
        losses = {name: arm.loss(texts.batches(size, 0)[0]) for name, arm in arms.items()}
        dtypes = {name: str(arm.dtype).removeprefix("torch.") for name, arm in arms.items()}
        entry: dict[str, Any] = {
            "length": length, "batch_size": size, "losses": losses, "dtypes": dtypes,
            "problems": disagreeing(losses, dtypes), "rounds": [],
        }  # fmt: skip
        for number in range(rounds + 1):
            batches = texts.batches(size, number)
            seconds: dict[str, dict[str, float]] = {}
            for name, arm in arms.items():
                arm.reset()
                gc.collect()
                torch.cuda.reset_peak_memory_stats()
                steps = clocked(lambda arm=arm: [arm.step(batch) for batch in batches])  # type: ignore[misc]  # noqa: B023
                peak = torch.cuda.max_memory_allocated()
                scores = clocked(lambda arm=arm: arm.scores(batches, texts.labels))  # type: ignore[misc]  # noqa: B023
                seconds[name] = {
                    "training": steps / len(batches),
                    "scoring": scores / len(batches),
                    "peak": peak,
                }
            if number:  # the first warms up
                entry["rounds"].append(seconds)
        found.append(entry)
        (out / "bench.json").write_text(json.dumps(found, indent=1) + "\n")


def device() -> dict[str, Any]:
    """Returns the device and versions."""
    facts = torch.cuda.get_device_properties(0)
    return {
        "name": facts.name, "memory_gib": round(facts.total_memory / 2**30, 1), "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }  # fmt: skip


def tables(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    from statistics import median

    facts = result["device"]
    lines = [
        f"{facts['name']}, {facts['memory_gib']} GiB; PyTorch {facts['torch']}, CUDA {facts['cuda']}.",
        "",
    ]
    lines += ["| stage | state | seconds | last line |", "|---|---|---|---|"]
    for name, one in result["stages"].items():
        lines.append(f"| {name} | {one['state']} | {one.get('seconds', '')} | {one.get('said', '')} |")
    if result["passes"]:
        lines += [
            "", "| engine | prompts | tokens | step, ms | tokens/s | 256 rows scored, ms | peak memory, MiB |",
            "|---" + "|--:" * 6 + "|",
        ]  # fmt: skip
    for one in result["passes"]:
        lines.append(
            f"| {one['name']} | {one['prompts']} | {one['tokens']:,.0f} | {1000 * one['training']:.1f} "
            f"| {one['tokens'] / one['training']:,.0f} | {1000 * one['scoring_256']:.1f} | {one['peak'] / 2**20:.0f} |"
        )
    for entry in result["bench"]:
        lines += [
            "", f"P={entry['length']}, batch {entry['batch_size']} (medians of {len(entry['rounds'])} rounds)", "",
            "| arm | loss | step, ms | scoring, ms | peak memory, MiB |", "|---|---|---|---|---|",
        ]  # fmt: skip
        for name, loss in entry["losses"].items():
            times = {
                key: median(one[name][key] for one in entry["rounds"])
                for key in ("training", "scoring", "peak")
            }
            lines.append(
                f"| {name} ({entry['dtypes'][name]}) | {loss:.4f} | {1000 * times['training']:.1f} "
                f"| {1000 * times['scoring']:.1f} | {times['peak'] / 2**20:.0f} |"
            )
        lines += [f"\n{problem}" for problem in entry["problems"]]
    if result["study"]:
        kinds = result["study"].get("kinds", {})
        lines += ["", "| cells of the quick study | planned | finished |", "|---|---|---|"]
        lines += [f"| {kind} | {one['cells']} | {one['finished']} |" for kind, one in kinds.items()]
    return "\n".join(lines)


def write(result: dict[str, Any], out: Path) -> None:
    """Writes the results so far in both forms."""
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "result.md").write_text(tables(result) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
