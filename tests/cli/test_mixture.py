"""A mixture of four tasks of the catalog through the real command: rates, a killed process, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spoton.prompts import SoftPrompt
from spoton.tasks import resolve_task
from spoton.tuning.row_order import rows_of_step
from tests.cli.conftest import Run
from tests.tasks.test_sources import write

MEMBERS = "cola,rte,cb,sst2"
SIZES = {"cola": 40, "rte": 30, "cb": 20, "sst2": 10}
STEPS = ("--length", "4", "--steps", "160", "--key-step", "10", "--evaluate-every", "20", "--batch-size", "4")


def rows(name: str, number: int) -> dict[str, Any]:
    """A row in the official schema."""
    pair = {"premise": f"The book was dull {number}.", "hypothesis": "The book was cold."}
    label = {
        "cola": ("acceptable", "unacceptable"),
        "rte": ("entailment", "not_entailment"),
        "cb": ("entailment", "contradiction", "neutral"),
        "sst2": ("negative", "positive"),
    }[name]
    text = {
        "cola": {"sentence": f"The film was warm {number}."},
        "rte": {"sentence1": pair["premise"], "sentence2": pair["hypothesis"]},
        "cb": pair,
        "sst2": {"sentence": f"a lovely meal {number}"},
    }[name]
    return {**text, "label": label[number % len(label)], "idx": number}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with rows of four tasks."""
    for name, size in SIZES.items():
        split = {"train": range(size), "validation": range(1000, 1012)}
        write(
            tmp_path / "data" / name,
            {key: [rows(name, n) for n in numbers] for key, numbers in split.items()},
        )
    return tmp_path / "data"


def test_a_killed_mixture_goes_on_and_equals_the_uninterrupted_one(
    run: Run, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "cut.safetensors", tmp_path / "whole.safetensors"
    command = [
        "tune", f"mixture:{MEMBERS}", "--data-dir", str(data), "--mixing-cap", "25", "--model", str(tiny_model), *STEPS,
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "spoton", *command, "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while (
        not out.with_suffix(".checkpoint").exists() and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr
    assert out.with_suffix(".checkpoint").exists() and not out.exists()

    resumed = run(*command, "--out", out, "--resume")
    assert resumed.code == 0, resumed.stderr
    assert run(*command, "--out", whole).code == 0
    again, once = (json.loads(path.with_suffix(".json").read_text()) for path in (out, whole))
    for same in ("scores", "history", "best_step", "data_hash", "notes", "steps"):
        assert again[same] == once[same], same
    cut, uncut = SoftPrompt.load(out), SoftPrompt.load(whole)
    assert cut.content_hash() == uncut.content_hash()
    assert cut.value.equal(uncut.value) and cut.key is not None and uncut.key is not None
    assert cut.key.equal(uncut.key)
    assert cut.card.model_copy(update={"created": ""}) == uncut.card.model_copy(update={"created": ""})

    # The card names the members and their rates, the record what a pass realised: min(size, 25) of 25 + 25 + 20 + 10.
    assert cut.card.template == ""
    rates = dict(re.findall(r"(\w+) (\d\.\d{4}) \(folder:", cut.card.source))
    assert rates == {"cola": "0.3125", "rte": "0.3125", "cb": "0.2500", "sst2": "0.1250"}
    assert cut.card.source.startswith("mixture, cap 25, temperature 1: ")
    counts = "cola 25 (31.2 %), rte 25 (31.2 %), cb 20 (25.0 %), sst2 10 (12.5 %)"
    assert once["notes"][0] == f"A pass over the mixture has 80 examples: {counts}."


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, {"cola": 40, "rte": 30, "cb": 20, "sst2": 10}),
        ({"mixing_cap": 15}, {"cola": 15, "rte": 15, "cb": 15, "sst2": 10}),
        ({"mixing_temperature": 2.0}, {name: size**0.5 for name, size in SIZES.items()}),
        ({"mixing_sizes": "published"}, {"cola": 8551, "rte": 2490, "cb": 250, "sst2": 67349}),
    ],
)
def test_what_steps_draw_is_what_the_formula_says(
    options: dict[str, Any], weights: dict[str, float], data: Path
) -> None:
    mixed = resolve_task(f"mixture:{MEMBERS}", data_dir=data, **options)
    steps = len(mixed.train) * 4 // 8  # four passes
    drawn = Counter(
        mixed.train[row].input.split()[0]
        for step in range(steps)
        for row in rows_of_step(len(mixed.train), 8, step, 0)
    )
    total = sum(weights.values())
    for name, weight in weights.items():
        # A pass is rounded to whole examples; a member always has one.
        expected = max(1.0, len(mixed.train) * weight / total)
        assert abs(drawn[name] / 4 - expected) <= 1.0, (name, drawn)
