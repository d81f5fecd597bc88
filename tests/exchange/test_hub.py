"""Sharing a library: to a folder, to memory, and to a small server that speaks the Hub's endpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from spoton.errors import LibraryError
from spoton.exchange.hub import pull_library, push_library
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from tests.exchange.hub_server import TOKEN, Hub
from tests.tiny import draw

REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


def a_prompt(name: str, seed: int = 0, **card: Any) -> SoftPrompt:
    fields: dict[str, Any] = {
        "name": name, "task": "sst2", "family": "sentiment", "model": "smollm2-135m", "model_fingerprint": "f00d",
        "metric": "accuracy", "evaluation": "rank", "splits": {"test": 200}, "license": "Apache-2.0",
        "scores": {"validation": {"accuracy": 81.0}, "test": {"accuracy": 79.5}},
        "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return SoftPrompt(draw(4, 8, seed=seed), Card(**(fields | card)), draw(4, 8, seed=seed + 1))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromptLibrary:
    """One prompt on rows of the Hub, and one on a file of somebody's own."""
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    filled = PromptLibrary(tmp_path / "library")
    filled.add(a_prompt("film", source=f"hub:nyu-mll/glue/sst2@{REVISION}"))
    filled.add(a_prompt("mine", 7, task="my|task", model="/home/me/model", source="file:reviews.csv"))
    return filled


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "folder" else f"memory://{uuid.uuid4()}/shared"


def read(place: str, name: str) -> str:
    remote, root = fsspec.core.url_to_fs(place)
    content: bytes = remote.cat_file(f"{root}/{name}")
    return content.decode()


def test_push_then_pull(library: PromptLibrary, place: str, tmp_path: Path) -> None:
    shared = push_library(library, place)
    assert shared.prompts == ["film", "mine"]
    other = PromptLibrary(tmp_path / "other")
    assert pull_library(place, other).prompts == ["film", "mine"]
    for name in ("film", "mine"):
        assert other.get(name).to_bytes() == library.get(name).to_bytes()
    assert push_library(library, place).unchanged == ["film", "mine"]
    assert pull_library(place, other).unchanged == ["film", "mine"]


def test_the_model_card_says_what_is_there(library: PromptLibrary, place: str) -> None:
    push_library(library, place, names=["film"], license="apache-2.0")
    push_library(library, place, names=["mine"])
    card = ModelCard(read(place, "README.md"))
    data = card.data.to_dict()
    assert data["library_name"] == "spoton" and data["license"] == "apache-2.0"
    assert data["base_model"] == ["HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert data["datasets"] == ["nyu-mll/glue"]
    assert data["tags"] == ["soft-prompt", "prompt-tuning", "sentiment"]
    assert (
        "| film | sst2 | sentiment | HuggingFaceTB/SmolLM2-135M-Instruct | 4 | accuracy | 81.0 | 79.5 |"
        in card.text
    )
    assert "| mine | my\\|task | sentiment | model | 4 |" in card.text and "/home/me" not in card.text


def test_scores_on_rows_of_the_hub_are_eval_results(library: PromptLibrary, place: str) -> None:
    shared = push_library(library, place)
    assert [name for name in shared.files if name.startswith(".eval_results")] == [".eval_results/film.yaml"]
    (result,) = yaml.safe_load(read(place, ".eval_results/film.yaml"))
    assert result["dataset"] == {"id": "nyu-mll/glue", "task_id": "sst2", "revision": REVISION}
    assert result["value"] == 79.5 and "accuracy" in result["notes"] and "200" in result["notes"]


def test_a_model_card_written_by_hand_stays(library: PromptLibrary, place: str) -> None:
    push_library(library, place, names=["film"])
    remote, root = fsspec.core.url_to_fs(place)
    remote.pipe_file(f"{root}/README.md", b"# Mine\n")
    assert "README.md" not in push_library(library, place).files
    assert read(place, "README.md") == "# Mine\n"


def test_files_of_older_versions_and_of_other_names_are_copied_once(place: str, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    written_before = Path(__file__).parents[1] / "prompts" / "prompt-1.safetensors"
    (old / "renamed.safetensors").write_bytes(written_before.read_bytes())
    mine = PromptLibrary(tmp_path / "mine")
    assert pull_library(str(old), mine).prompts == ["renamed"]
    assert pull_library(str(old), mine).unchanged == ["renamed"]
    assert push_library(PromptLibrary(old), place).prompts == ["renamed"]
    assert push_library(PromptLibrary(old), place).unchanged == ["renamed"]


def test_a_taken_name_is_kept_unless_asked_to_replace(
    library: PromptLibrary, place: str, tmp_path: Path
) -> None:
    push_library(library, place)
    other = PromptLibrary(tmp_path / "other")
    other.add(a_prompt("mine", 50))
    with pytest.raises(LibraryError, match="already has other prompts named mine"):
        pull_library(place, other)
    assert [entry.name for entry in other.list()] == ["mine"]
    assert pull_library(place, other, names=["film"]).prompts == ["film"]
    pull_library(place, other, replace=True)
    assert torch.equal(other.get("mine").value, library.get("mine").value)
    (other.folder / "film.safetensors").write_bytes(b"half a file")
    with pytest.raises(LibraryError, match="already has other prompts named film"):
        pull_library(place, other)


def test_a_prompt_of_somebody_else_is_pushed_over_only_on_request(
    library: PromptLibrary, place: str, tmp_path: Path
) -> None:
    push_library(library, place)
    other = PromptLibrary(tmp_path / "other")
    other.add(a_prompt("mine", 50))
    other.add(a_prompt("new", 60))
    with pytest.raises(LibraryError, match=r"already has other prompts named mine.*--replace"):
        push_library(other, place)
    assert [entry.name for entry in PromptLibrary(place, readonly=True).list()] == ["film", "mine"]
    assert push_library(other, place, replace=True).prompts == ["mine", "new"]
    assert torch.equal(PromptLibrary(place, readonly=True).get("mine").value, other.get("mine").value)


def test_prompts_that_are_not_there(library: PromptLibrary, place: str, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="no whole prompt named movie; it has film, mine"):
        push_library(library, place, names=["movie"])
    with pytest.raises(LibraryError, match="holds no prompts"):
        pull_library(place, PromptLibrary(tmp_path / "other"))
    with pytest.raises(LibraryError, match="expected hf://owner/name"):
        push_library(library, "hf://only-a-name")


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["in the commit", "by LFS"])
def hub(request: pytest.FixtureRequest, tmp_path: Path, library: PromptLibrary) -> Any:
    """A server, and a function that runs spoton against it in a process of its own, as the client asks once."""
    server = Hub(lfs=(".safetensors",) if request.param == "by LFS" else ())
    with server.serving() as address:
        environment = os.environ | {
            "HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
            "SPOTON_CACHE": str(tmp_path / "cache"), "SPOTON_LIBRARY": str(tmp_path / "own"),
        }  # fmt: skip

        def run(*args: str, **changes: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "spoton", *args], env=environment | changes, capture_output=True, text=True,
                check=False,
            )  # fmt: skip

        yield server, run


def test_the_hub_takes_and_gives_a_library(hub: tuple[Hub, Run], library: PromptLibrary) -> None:
    server, run = hub
    pushed = run("library", "push", "hf://me/prompts", "--library", str(library.folder), "--json")
    assert pushed.returncode == 0, pushed.stderr
    files = server.repositories["me/prompts"]
    assert files.keys() == {"film.safetensors", "mine.safetensors", "README.md", ".eval_results/film.yaml"}
    assert files["film.safetensors"] == library.get("film").to_bytes()
    assert server.commits == ["Prompts from spoton"]
    pulled = run("library", "pull", "hf://me/prompts", "film", "--json")
    assert json.loads(pulled.stdout)["prompts"] == ["film"], pulled.stderr
    shown = run("library", "show", "mine", "--library", "hf://me/prompts", "--json")
    assert json.loads(shown.stdout)["hash"] == library.get("mine").content_hash(), shown.stderr
    refused = run("library", "push", "hf://me/prompts", "--library", str(library.folder), HF_TOKEN="hf_wrong")
    assert refused.returncode == 2 and "hf auth login" in refused.stderr and "Traceback" not in refused.stderr
