"""Runs mixed traffic for some minutes while prompts come and go; checks every answer, and records memory.

    python -m experiments.serving.soak --minutes 20

The server is a separate process. Expected answers come from `spoton.evaluation.predict`, one prompt at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

from experiments.serving.prompts import fill_library, name_of, texts, varied
from spoton.evaluation import predict
from spoton.models import load_model

CHECKOUT = Path(__file__).parents[2]
OUT = CHECKOUT / "docs" / "experiments" / "serving_soak.json"
TOLERANCE = 1e-4  # of a probability in float32, between passes of different shapes
PROMPTS, SPARE, TEXTS = 24, 12, 8


class Soak:
    """Traffic against one server.

    Args:
        url: The server's URL.
        folder: Folder of its library.
        pid: ID of its process.
        until: When to stop, by `time.monotonic`.
    """

    def __init__(self, url: str, folder: Path, pid: int, until: float) -> None:
        self.url, self.until, self.process = url, until, psutil.Process(pid)
        self.library = fill_library(folder, PROMPTS)
        self.model = load_model(dtype="float32", device="cpu")
        self.texts = texts(TEXTS)
        self.there = set(range(PROMPTS))
        self.changed: dict[int, float] = dict.fromkeys(range(PROMPTS + SPARE), 0.0)
        self.counts = dict.fromkeys(
            ("requests", "rows", "wrong", "missing", "failed", "malformed", "changes"), 0
        )
        self.largest = 0.0
        self.memory: list[tuple[float, float]] = []
        self.start = time.monotonic()

    @cache  # noqa: B019  # one object, for as long as the process lives
    def expected(self, number: int) -> list[dict[str, float]]:
        """Returns `predict`'s probabilities of every text with one prompt."""
        found = predict(self.model, varied(number), self.texts)
        return [one.probabilities or {} for one in found]

    async def classify(self, client: httpx.AsyncClient, random_: random.Random) -> None:
        """Sends one request with several rows and different prompts."""
        rows = [
            (random_.randrange(PROMPTS + SPARE), random_.randrange(TEXTS))
            for _ in range(random_.randint(1, 6))
        ]
        rows = [row for row in rows if row[0] in self.there] or [(0, 0)]
        body = {"prompt": [name_of(n) for n, _ in rows], "inputs": [self.texts[t] for _, t in rows]}
        sent = time.monotonic()
        response = await client.post(f"{self.url}/v1/classify", json=body)
        self.counts["requests"] += 1
        if response.status_code == 404 and any(self.changed[n] > sent - 2 for n, _ in rows):
            self.counts["missing"] += 1  # removed while the request was running
            return
        if response.status_code != 200:
            self.counts["failed"] += 1
            print(response.status_code, response.text[:300], file=sys.stderr)
            return
        for (number, text), found in zip(rows, response.json()["data"], strict=True):
            expected = self.expected(number)[text]
            difference = max(abs(expected[label] - found["probabilities"][label]) for label in expected)
            self.largest = max(self.largest, difference)
            self.counts["rows"] += 1
            self.counts["wrong"] += difference > TOLERANCE

    async def other(self, client: httpx.AsyncClient, random_: random.Random) -> None:
        """Sends a completion, or a request that cannot be answered."""
        if random_.random() < 0.5:
            body: dict[str, Any] = {"model": "smollm2-135m", "prompt": "Once upon a time", "max_tokens": 8}
            response = await client.post(f"{self.url}/v1/completions", json=body | {"temperature": 0.7})
            self.counts["failed"] += response.status_code != 200
        else:
            response = await client.post(f"{self.url}/v1/classify", json={"prompt": "nothing", "inputs": [7]})
            self.counts["malformed"] += 1
            self.counts["failed"] += response.status_code != 400
        self.counts["requests"] += 1

    async def clients(self, seed: int) -> None:
        """Runs one client, which sends one request after another."""
        random_ = random.Random(seed)
        async with httpx.AsyncClient(timeout=180) as client:
            while time.monotonic() < self.until:
                act = self.other if random_.random() < 0.1 else self.classify
                await act(client, random_)

    async def changes(self) -> None:
        """Adds or removes a prompt every two seconds, and notes the server's memory."""
        random_ = random.Random(99)
        while time.monotonic() < self.until:
            number = random_.randrange(1, PROMPTS + SPARE)
            self.changed[number] = time.monotonic()
            if number in self.there:
                self.there.discard(number)
                self.library.remove(name_of(number))
            else:
                self.library.add(varied(number))
                self.there.add(number)
            self.counts["changes"] += 1
            self.memory.append(
                (round(time.monotonic() - self.start, 1), round(self.process.memory_info().rss / 2**20, 1))
            )
            await asyncio.sleep(2)

    async def run(self) -> None:
        """Runs everything concurrently."""
        await asyncio.gather(*(self.clients(seed) for seed in range(4)), self.changes())


def main() -> int:
    """Runs the soak test; returns 1 if a row was wrong or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m experiments.serving.soak")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "prompts"
        fill_library(folder, PROMPTS)
        command = [
            sys.executable,
            "-m",
            "spoton",
            "serve",
            str(folder),
            "--dtype",
            "float32",
            "--device",
            "cpu",
        ]
        # The cache is smaller than the keys of all prompts, so that it always has to evict some.
        server = subprocess.Popen(
            [*command, "--port", "0", "--cache-mb", "16", "--seconds", "120", "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        assert server.stdout is not None
        document = ""
        while not document.endswith("}\n"):
            document += server.stdout.readline()
        soak = Soak(
            json.loads(document)["url"], folder, server.pid, time.monotonic() + 60 * arguments.minutes
        )
        # Expected answers come first: they use the server's processors, and would hold up the traffic.
        for number in range(PROMPTS + SPARE):
            soak.expected(number)
        soak.until = time.monotonic() + 60 * arguments.minutes
        soak.start = time.monotonic()
        asyncio.run(soak.run())
        metrics = httpx.get(f"{soak.url}/metrics").text
        server.terminate()
        stopped = server.wait(180)
    warm = [size for _, size in soak.memory][len(soak.memory) // 10 :]
    third = max(1, len(warm) // 3)
    result = {
        "date": date.today().isoformat(),
        "minutes": arguments.minutes,
        "prompts": PROMPTS,
        "counts": soak.counts,
        "largest_difference": soak.largest,
        "tolerance": TOLERANCE,
        "memory_mb": {
            "first": soak.memory[0][1],
            "mean_of_first_third": round(sum(warm[:third]) / third, 1),
            "mean_of_last_third": round(sum(warm[-third:]) / third, 1),
            "largest": max(size for _, size in soak.memory),
            "last": soak.memory[-1][1],
        },
        "evictions": _metric(metrics, "spoton_cache_evictions"),
        "cache_bytes": _metric(metrics, "spoton_cache_bytes"),
        "exit_code": stopped,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if soak.counts["wrong"] or soak.counts["failed"] or stopped else 0


def _metric(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    sys.exit(main())
