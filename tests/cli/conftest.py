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
from spoton.models import load_model
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from tests.tiny import BAD, GOOD, NOUNS, WIDTH, tiny, tokenizer


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


def a_prompt(name: str = "news", seed: int = 0, width: int = 8, **card: Any) -> SoftPrompt:
    """A prompt of 4 tokens with a key, from no model in particular."""
    generator = torch.Generator().manual_seed(seed)
    facts = {
        "task": f"{name}_task",
        "family": "sentiment",
        "metric": "accuracy",
        "scores": {"validation": {"accuracy": 81.0}},
    }
    fixed = {"name": name, "model": "tiny", "model_fingerprint": "f00d"}
    value, key = torch.randn(2, 4, width, generator=generator)
    return SoftPrompt(value, Card(**(fixed | facts | card)), key)


@pytest.fixture
def library(tmp_path: Path) -> PromptLibrary:
    """A library of two prompts of two families."""
    filled = PromptLibrary(tmp_path / "library")
    filled.add(a_prompt("news"))
    filled.add(a_prompt("quiz", seed=1, family="question answering"))
    return filled


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama, as a user would have one."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    tiny("llama").network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of 80 reviews, `text` and `label`."""
    rows = [
        (f"The {noun} was {word}.", label)
        for label, words in (("good", GOOD), ("bad", BAD))
        for noun in NOUNS
        for word in words
    ]
    rows += [(f"{text} Really.", label) for text, label in rows]
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return file


@pytest.fixture
def prompts(tiny_model: Path, tmp_path: Path) -> PromptLibrary:
    """Two prompts of the tiny model."""
    model = load_model(str(tiny_model))
    library = PromptLibrary(tmp_path / "prompts")
    for seed, name in enumerate(("news", "quiz")):
        facts = {"model": str(tiny_model), "model_fingerprint": model.fingerprint}
        library.add(a_prompt(name, seed, width=WIDTH, **facts))
    return library
