"""A training file of millions of rows: the time until the first step, and the memory.

    python -m experiments.scale.rows                        # a million rows
    python -m experiments.scale.rows --rows 10000000        # ten times as many: 4 GB of disk, a quarter of an hour

Rows have about 30 words. Indexing, and a start with an existing index, run in fresh processes. The second tunes three
steps of the embedded model. Writes `docs/experiments/scale/rows.json` and its table in `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.pages import filled
from spoton.files import cache_folder

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs" / "experiments" / "scale" / "rows.json"
WORDS, LABELS, STEPS = 30, 4, 3


def write(path: Path, rows: int) -> None:
    """Writes a CSV file; one row in a hundred has the text of another row."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(5_000)]
    text = ""
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(rows):
            if number % 100 != 99:
                text = " ".join(draw.choices(words, k=draw.randint(WORDS // 2, WORDS * 3 // 2)))
            file.write(f"{text},label {number // 2 % LABELS}\n")


def measure(path: Path, tune: bool) -> dict[str, Any]:
    """Loads the file in this process and takes the first steps if `tune` is set; returns seconds and MiB."""
    from spoton.tasks import load_task_file

    began = _clock()
    task = load_task_file(path)
    found: dict[str, Any] = {"load": _since(began)}
    if tune:
        from spoton.models import load_model
        from spoton.tuning import Recipe
        from spoton.tuning.prompt_run import Job, PromptRun
        from spoton.tuning.tune import train_together

        began = _clock()
        model = load_model()
        found["model"] = _since(began)
        recipe = Recipe.preset("decoder", steps=STEPS, evaluate_every=STEPS + 1, key_step=1, calibrate="none")
        few = replace(task, validation=task.validation[:8])  # evaluations are not measured
        began = _clock()
        run = PromptRun(model, Job(few, recipe))
        found["until the first step"] = _since(began)
        taken: list[dict[str, float]] = []
        rows = run.run.next_rows

        def timed() -> Any:
            before = _clock()
            chosen = rows()
            taken.append(_since(before))
            return chosen

        run.run.next_rows = timed  # type: ignore[method-assign]
        train_together(model, [run.run], [run.begin])
        found["rows of a step"] = taken[-1]
    began = _clock()
    task.data_hash()
    found["hash"] = _since(began)
    found["splits"] = task.splits()
    found["data_hash"] = task.data_hash()
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> dict[str, float]:
    return {"wall": time.perf_counter() - began[0], "cpu": time.process_time() - began[1]}


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    lines = [
        "| rows | file, MB | first call: index, CPU s | its hash, CPU s | peak memory, MiB "
        "| later: load, CPU s | model, CPU s | until the first step, CPU s | rows of a step, CPU s "
        "| peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(record["rows"], key=lambda row: int(row["rows"])):
        first, later = row["first"], row["later"]
        lines.append(
            f"| {row['rows']:,} | {row['megabytes']:,.0f} | {first['load']['cpu']:.1f} | {first['hash']['cpu']:.1f} "
            f"| {first['peak_mib']:,.0f} | {later['load']['cpu']:.2f} | {later['model']['cpu']:.1f} "
            f"| {later['until the first step']['cpu']:.2f} | {later['rows of a step']['cpu']:.3f} "
            f"| {later['peak_mib']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Writes the file, measures in fresh processes, and writes record and table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tune", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.tune)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows.csv"
        write(path, options.rows)
        cache = Path(scratch) / "cache"
        cache.mkdir()
        (cache / "models").symlink_to(cache_folder() / "models")
        environment = os.environ | {"SPOTON_CACHE": str(cache)}

        def fresh(*more: str) -> dict[str, Any]:
            command = [sys.executable, "-m", "experiments.scale.rows", "--measure", str(path), *more]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            return dict(json.loads(done.stdout.splitlines()[-1]))

        found = {
            "rows": options.rows, "megabytes": path.stat().st_size / 1e6, "first": fresh(),
            "later": fresh("--tune"),
        }  # fmt: skip
    print(json.dumps(found, indent=1))
    if found["first"]["data_hash"] != found["later"]["data_hash"]:
        raise RuntimeError("the index gives another task")
    if options.no_write:
        return
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {"rows": []}
    record["rows"] = [row for row in record["rows"] if row["rows"] != options.rows] + [found]
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    page = ROOT / "docs" / "performance.md"
    page.write_text(filled(page.read_text(), "scale-rows", table(record)))


if __name__ == "__main__":
    main()
