"""The pages on other servers and on sharing: every command and block runs, with a tiny model for the embedded one."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spoton.cli.app import app
from spoton.models import load_model
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from tests.acceptance.pages import CHECKOUT, blocks, commands, words
from tests.tiny import BAD, GOOD, NOUNS, WIDTH, draw, tiny, tokenizer

SERVERS = CHECKOUT / "docs" / "how-to" / "serve-elsewhere"
STEPS = ["--steps", "4", "--key-step", "2", "--evaluate-every", "2", "--batch-size", "4", "--length", "4"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, two prompts of it in the user's library, one as a file, and a CSV."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    tiny("llama").network.save_pretrained("smollm2-135m")
    tokenizer().save_pretrained("smollm2-135m")
    model = load_model("smollm2-135m")
    library = PromptLibrary(tmp_path / "library")
    for seed, name in enumerate(("reviews", "support")):
        card = Card(
            name=name, task=name, model="smollm2-135m", model_fingerprint=model.fingerprint,
            template="{{ text }}\nAnswer:", labels=["yes", "no"], recipe={"length": 4, "init": "vocabulary"},
        )  # fmt: skip
        library.add(SoftPrompt(draw(4, WIDTH, seed=seed), card, draw(4, WIDTH, seed=seed + 5)))
    library.get("reviews").save("reviews.safetensors")
    rows = [f"The {noun} was {word}.,{word in GOOD}" for noun in NOUNS for word in (*GOOD, *BAD)]
    Path("complaints.csv").write_text("\n".join(["text,team", *rows]))
    return tmp_path


def run(line: str, *more: str) -> None:
    """Runs a command of a page."""
    ran = CliRunner().invoke(app, [*words(line)[1:], *more], catch_exceptions=False)
    assert ran.exit_code == 0, f"{line}\n{ran.output}"


# PEFT drops the position ids that transformers hands it, and says so.
@pytest.mark.filterwarnings("default:Position ids are not supported", "default::FutureWarning")
@pytest.mark.parametrize("page", sorted(SERVERS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_on_a_server_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in commands(page, "spoton"):
        run(line)
    if page.stem == "transformers-peft":
        pytest.importorskip("peft", reason="PEFT is not installed: pip install 'spoton[peft]'")
        monkeypatch.setattr("spoton.models.pull_model", lambda name: Path(name))
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


def test_the_page_on_sharing_runs() -> None:
    """With a library in memory in the place of a repository; what is pushed first is there to be read."""
    page = CHECKOUT / "docs" / "how-to" / "share-a-library.md"
    there = f"memory://{uuid.uuid4()}/prompts"
    lines = [line.replace("hf://my-team/prompts", there) for line in commands(page, "spoton")]
    assert len(lines) == 7
    for line in sorted(lines, key=lambda line: "library push" not in line):
        run(line, *(STEPS if " adapt " in line else ()))
    assert {entry.name for entry in PromptLibrary(there).list()} == {"reviews", "support"}
    assert Path("shared/prompts/README.md").is_file()


def test_the_reference_on_exchange_runs() -> None:
    import numpy as np

    np.save("sst2.npy", draw(4, WIDTH).numpy())
    for line in commands(CHECKOUT / "docs" / "reference" / "exchange.md", "spoton"):
        run(line)
    assert SoftPrompt.load("sst2.safetensors").card.name == "sst2"
