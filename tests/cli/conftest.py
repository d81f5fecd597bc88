"""The command line as a user runs it: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from spoton.cli.app import app
from spoton.prompts import Card, PromptLibrary, SoftPrompt


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Stdout as the one JSON document it has to be."""
        return json.loads(self.stdout)


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line, with a home of its own. Anything but a clean exit is raised."""
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "own-library"))
    monkeypatch.delenv("SPOTON_DEBUG", raising=False)

    def invoke(*args: object, stdin: str | None = None) -> Ran:
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke


def a_prompt(name: str = "news", seed: int = 0, **card: Any) -> SoftPrompt:
    """A prompt of 4 tokens x 8 with a key, from no model in particular."""
    generator = torch.Generator().manual_seed(seed)
    facts = {
        "task": f"{name}_task",
        "family": "sentiment",
        "metric": "accuracy",
        "scores": {"validation": {"accuracy": 81.0}},
    }
    fixed = {"name": name, "model": "tiny", "model_fingerprint": "f00d"}
    value, key = torch.randn(2, 4, 8, generator=generator)
    return SoftPrompt(value, Card(**(fixed | facts | card)), key)


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    """A library of two prompts of two families."""
    filled = PromptLibrary(tmp_path / "library")
    filled.add(a_prompt("news"))
    filled.add(a_prompt("quiz", seed=1, family="question answering"))
    return filled
