"""docs/how-to/serve-prompts.md, from a CSV file to a served prompt: every command and every block of Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.pages import CHECKOUT, address, blocks, commands, words
from tests.serving.running import a_prompt
from tests.tiny import BAD, GOOD, NOUNS, tiny, tokenizer

pytest.importorskip("fastapi", reason="needs spoton[serve]")
PAGE = CHECKOUT / "docs" / "how-to" / "serve-prompts.md"
SMALLER = ("--steps", "4", "--key-step", "2", "--evaluate-every", "2", "--batch-size", "4", "--length", "4")


def spoton(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "spoton", *arguments]


@pytest.mark.timeout(600)
def test_the_page_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny model in the place of the embedded one, and a port that is free."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "library"))
    model = tiny("llama")
    model.network.save_pretrained("smollm2-135m")
    tokenizer().save_pretrained("smollm2-135m")
    rows = [(f"The {noun} was {word}.", word in GOOD) for noun in NOUNS for word in (*GOOD, *BAD)]
    Path("reviews.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    tune, add, serve, guarded = commands(PAGE, "spoton")
    for line, more in ((tune, SMALLER), (add, ())):
        subprocess.run(spoton(tmp_path, *words(line)[1:], *more), check=True, capture_output=True)
    # The starter library belongs to the embedded model; this prompt stands for one of it.
    (movie := tmp_path / "library" / "movie_sentiment.safetensors").write_bytes(
        a_prompt(model, "movie_sentiment", labels=["positive", "negative"]).to_bytes()
    )
    token = "0123456789abcdef0123"
    (token_line,) = commands(PAGE, "python")
    made = subprocess.run(
        [sys.executable, *shlex.split(token_line.split(">")[0])[1:]], capture_output=True, text=True
    )
    assert len(made.stdout.strip()) > len(token) and movie.is_file()
    Path("token.txt").write_text(made.stdout)
    refusing = subprocess.Popen(
        spoton(tmp_path, *words(guarded)[1:], "--port", "0", "--json"), stdout=subprocess.PIPE, text=True
    )
    server = subprocess.Popen(
        spoton(tmp_path, *words(serve)[1:], "--port", "0", "--json"), stdout=subprocess.PIPE, text=True
    )
    try:
        addresses = [address(one) for one in (refusing, server)]
        (curl,) = commands(PAGE, "curl")
        for line, expected in zip((curl, curl), ("invalid_api_key", '"answer":"'), strict=True):
            url = addresses.pop(0)
            arguments = shlex.split(
                line.replace("http://127.0.0.1:8000", url.replace("0.0.0.0", "127.0.0.1"))
            )
            assert (
                expected
                in subprocess.run([*arguments, "-s"], capture_output=True, text=True, check=True).stdout
            )
        for block in blocks(PAGE, "python"):
            exec(compile(block.replace("http://127.0.0.1:8000", url), PAGE.name, "exec"), {})
        out = capsys.readouterr().out
        assert re.search(r"^reviews (True|False) \{", out, re.MULTILINE) and "movie_sentiment" in out
    finally:
        for process in (refusing, server):
            process.terminate()
            process.communicate()
    assert server.returncode == 0 and refusing.returncode == 0
