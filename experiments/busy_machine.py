"""How long should a thread spin for the others? The same scoring with several waits, alone and next to a busy program.

libgomp, the OpenMP of torch's builds for Linux, lets a thread that has done its share of a matrix product spin
before it sleeps (`GOMP_SPINCOUNT`). On a machine that other programs use, it spins on the very core that the slower
thread waits for. Each run is a process of its own, since the variable is read when torch is loaded; the runs alternate.
The neighbour is one process that computes without end, in a session of its own, as Linux schedules sessions. Only
sensible on two cores that do nothing else. Writes `docs/experiments/busy_machine.json` and the table in
`docs/performance.md`.

    python -m experiments.busy_machine --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.pages import filled

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "experiments" / "busy_machine.json"
WAITS = {"libgomp's default": None, "10,000": "10000", "3,000": "3000", "1,000": "1000"}
ROWS, THREADS = 64, 2


def scored() -> float:
    """Returns the seconds of scoring, in this process."""
    import torch

    import spoton

    torch.set_num_threads(THREADS)
    model, prompt = spoton.load_model("smollm2-135m"), spoton.starter_library().get("movie_sentiment")
    task = spoton.resolve_task("news_sentiment", form="natural", test_size=ROWS)
    spoton.evaluate(model, prompt, task.test[:8], task)
    began = time.perf_counter()
    spoton.evaluate(model, prompt, task.test, task)
    return time.perf_counter() - began


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Runs a process that computes without end next to the block, if `busy`."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measured(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Returns the seconds of every run, by neighbour and wait."""
    found: dict[str, dict[str, list[float]]] = {n: {wait: [] for wait in WAITS} for n in ("alone", "busy")}
    for number in range(rounds):
        for where, runs in found.items():
            for wait, count in WAITS.items():
                kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
                with neighbour(where == "busy"):
                    said = subprocess.run(
                        [sys.executable, "-m", "experiments.busy_machine", "--one"],
                        env=kept | ({"GOMP_SPINCOUNT": count} if count else {}),
                        capture_output=True, text=True, check=True,
                    )  # fmt: skip
                runs[wait].append(float(said.stdout))
                print(number, where, wait, said.stdout.strip(), file=sys.stderr, flush=True)
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Returns the medians of the seconds as Markdown."""
    lines = ["| spins | alone, s | next to a busy program, s |", "|---|--:|--:|"]
    for wait in WAITS:
        cells = " | ".join(f"{statistics.median(found[where][wait]):.1f}" for where in ("alone", "busy"))
        lines.append(f"| {wait} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, and fills the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--one", action="store_true", help="score in this process and print the seconds")
    arguments = parser.parse_args()
    if arguments.one:
        print(scored())
        return
    found = measured(arguments.rounds)
    RECORD.write_text(json.dumps({"rows": ROWS, "threads": THREADS, "seconds": found}, indent=2) + "\n")
    page = ROOT / "docs" / "performance.md"
    page.write_text(filled(page.read_text(), "busy-machine", table(found)))


if __name__ == "__main__":
    main()
