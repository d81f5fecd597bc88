"""The script for a GPU, as far as it goes without one: it says so and stops, and it divides its minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.gpu.__main__ import NO_DEVICE, STAGES, command_of, main, minutes_for, ran, tables
from experiments.gpu.passes import one
from spoton import load_model


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_it_refuses_without_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out")]) == NO_DEVICE
    told = capsys.readouterr()
    assert told.out == "" and "There is no CUDA device here" in told.err and "build of PyTorch" in told.err
    assert not (tmp_path / "out").exists()


def planned(minutes: float) -> list[float]:
    """Minutes of each stage, if all take what they get."""
    found = []
    for number, stage in enumerate(STAGES):
        found.append(minutes_for(stage, minutes, STAGES[number + 1 :]))
        minutes -= found[-1]
    return found


def test_stages_share_the_minutes() -> None:
    assert planned(25) == [10, 3, 8, 4]
    assert planned(12) == [5, 1, 2, 4]
    assert planned(5) == [2, 1, 2, 0]  # no study: it would end before its first cells
    assert planned(1.5) == [1.5, 0, 0, 0]
    assert planned(0.5) == [0, 0, 0, 0]
    for minutes in range(1, 40):
        assert sum(planned(minutes)) <= min(minutes, 33)


def test_a_stage_that_fails_or_takes_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [line[1:4] for line in command_of("tests", tmp_path)] == [["-m", "pytest", "-m"]]

    def sleeping(stage: str, out: Path) -> list[list[str]]:
        return (
            [["sleep", "0"], ["sleep", "30"]] if stage == "bench" else [["sh", "-c", "echo broken; exit 3"]]
        )

    monkeypatch.setattr("experiments.gpu.__main__.command_of", sleeping)
    late, broken = ran("bench", tmp_path, 0.01), ran("tests", tmp_path, 1)
    assert late["state"] == "out of time" and late["seconds"] < 20
    assert (broken["state"], broken["code"], broken["said"]) == ("failed", 3, "broken")


def test_the_tables_hold_what_was_found() -> None:
    times = {"training": 0.01, "scoring": 0.02, "peak": 2**20}
    text = tables({
        "device": {"name": "A card", "memory_gib": 80.0, "torch": "2", "cuda": "12"},
        "stages": {"tests": {"state": "finished", "seconds": 3.0, "said": "9 passed"}, "study": {"state": "not begun"}},
        "passes": [{
            "engine": "chosen", "name": "packed, fused", "prompts": 4, "tokens": 4200.0, "training": 0.05,
            "scoring_256": 0.04, "peak": 2**21, "passes": 1,
        }],
        "bench": [{
            "length": 100, "batch_size": 16, "losses": {"spoton": 1.5}, "dtypes": {"spoton": "bfloat16"},
            "problems": ["spoton: loss 1.5, but PEFT finds 2"], "rounds": [{"spoton": times}] * 3,
        }],
        "study": {"kinds": {"source": {"cells": 6, "finished": 2}}},
    })  # fmt: skip
    for line in (
        "| tests | finished | 3.0 | 9 passed |", "| study | not begun |  |  |", "but PEFT finds 2",
        "| packed, fused | 4 | 4,200 | 50.0 | 84,000 | 40.0 | 2 |",
        "| spoton (bfloat16) | 1.5000 | 10.0 | 20.0 | 1 |", "| source | 6 | 2 |",
    ):  # fmt: skip
        assert line in text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("prompts", [1, 3])
def test_a_pass_is_measured(prompts: int) -> None:
    model = load_model(device="cuda")
    found = one(model, prompts)
    assert found["tokens"] > prompts * 580 and found["training"] > 0 and found["peak"] > 0
