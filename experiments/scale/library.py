"""A library of synthetic prompts: the time and memory that indexing, listing and ranking take.

    python -m experiments.scale.library --prompts 100000 --out build/scale/library.json

spoton itself writes the prompts: ten virtual tokens each, with the width of SmolLM2-135M, in a folder that is removed
at the end. The first listing reads every file and makes the index. The second listing and the ranking use the index.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.transfer import retrieve, sources_for

_LENGTH, _WIDTH = 10, 576


def write(folder: Path, prompts: int) -> None:
    """Writes the library, without the fsync for every file in `PromptLibrary.add`."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for number in range(prompts):
        card = Card(
            name=f"prompt-{number}",
            task=f"task-{number}",
            model="synthetic",
            model_fingerprint="2-0",
            labels=["a", "b"],
        )
        key = torch.randn(_LENGTH, _WIDTH, generator=draw)
        (folder / f"prompt-{number}.safetensors").write_bytes(SoftPrompt(key, card, key).to_bytes())


def measure(folder: Path) -> dict[str, float]:
    """Returns the seconds of a listing and a ranking, and the memory they took in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    library = PromptLibrary(folder)
    listing = library.list()
    listed = time.perf_counter() - began
    key = torch.randn(_LENGTH, _WIDTH, generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    sources = sources_for([library], "2-0", task="mine")
    chosen = time.perf_counter() - began
    began = time.perf_counter()
    ranking = retrieve(key, sources, 10)
    ranked = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert len(ranking) == 10
    return {
        "prompts": len(listing), "list_seconds": listed, "list_and_filter_seconds": chosen, "rank_seconds": ranked,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mib_above_start": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }  # fmt: skip


def main() -> None:
    """Writes the library, and measures in fresh processes: with no index, with an index, with a damaged index."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=100_000)
    options.add_argument("--out", type=Path, default=Path("build/scale/library.json"))
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "library", Path(scratch) / "cache"
        began = time.perf_counter()
        write(folder, given.prompts)
        results: dict[str, object] = {"write_seconds": time.perf_counter() - began}

        def fresh() -> dict[str, float]:
            command = [sys.executable, "-m", "experiments.scale.library", "--measure", str(folder)]
            environment = os.environ | {"SPOTON_CACHE": str(cache)}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return dict(json.loads(done.stdout))

        results["index made"] = fresh()
        results["index used"] = fresh()
        for file in cache.glob("libraries/*/heads.sqlite"):
            file.write_bytes(b"damaged" * 1000)
        results["index damaged, made anew"] = fresh()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
