"""The command line as a user runs it: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from spoton.cli.app import app
from spoton.models import load_model
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


GOOD = (
    "a lovely warm film",
    "the best show of the year",
    "bright and funny songs",
    "what a great little story",
)
BAD = ("a dull cold film", "the worst show of the year", "slow and sad songs", "what a poor little story")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 2 layers and a tokenizer that knows the words of the reviews below."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [f" {text} good bad" for text in GOOD + BAD] * 5, 400, 2, special_tokens=["</s>"]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of 80 reviews, `text` and `label`."""
    rows = [
        (f"{text}, part {i}", label)
        for i in range(10)
        for label, texts in (("good", GOOD), ("bad", BAD))
        for text in texts
    ]
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    return file


@pytest.fixture
def prompts(tiny_model: Path, tmp_path: Path) -> PromptLibrary:
    """Two prompts of the tiny model."""
    model = load_model(str(tiny_model))
    library = PromptLibrary(tmp_path / "prompts")
    for seed, name in enumerate(("news", "quiz")):
        drawn = a_prompt(name, seed, model=str(tiny_model), model_fingerprint=model.fingerprint)
        wide = SoftPrompt(drawn.value.repeat(1, 2), drawn.card, drawn.key.repeat(1, 2))  # D = 16
        library.add(wide)
    return library
