"""`spoton serve`: what keeps it from starting. That it serves is tested in tests/serving, on real processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from spoton.cli.serve import served_libraries
from spoton.errors import ModelError
from spoton.models.loading import DEFAULT_MODEL
from spoton.prompts import PromptLibrary
from spoton.serving.roster import Roster
from tests.cli.conftest import Run
from tests.serving.running import a_prompt
from tests.tiny import tiny


def test_others_need_a_token(run: Run, prompts: PromptLibrary, tiny_model: Path) -> None:
    ran = run("serve", prompts.folder, "--model", tiny_model, "--host", "0.0.0.0", "--json")
    assert ran.code == 2 and ran.document["kind"] == "ServingError" and "--token-file" in ran.stderr


@pytest.mark.parametrize("content", ["", "short", "a token that is not ASCII: é", None])
def test_a_token_that_keeps_nobody_out(run: Run, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token.txt"
    if content is not None:
        file.write_text(content)
    ran = run("serve", "--token-file", file)
    assert ran.code == 2 and str(file) in ran.stderr.replace("\n", "")


def test_a_library_that_is_not_there(run: Run, tmp_path: Path) -> None:
    ran = run("serve", tmp_path / "nothing")
    assert ran.code == 2 and "no such folder" in ran.stderr


def test_libraries_are_named_as_in_other_commands_too(run: Run, tmp_path: Path) -> None:
    ran = run("serve", "--library", tmp_path / "nothing", "--json")
    assert (
        ran.code == 2 and ran.document["kind"] == "LibraryError" and "no such folder" in ran.document["error"]
    )


def test_the_own_library_may_appear_while_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "own"))
    model = tiny("llama")
    roster = Roster(model, served_libraries(None), "base")
    assert "short" not in roster.served and not (tmp_path / "own").exists()
    PromptLibrary(tmp_path / "own").add(a_prompt(model, "short"))
    assert roster.refresh() and "short" in roster.served
    assert len(served_libraries(None)) == 2


def test_the_model_is_that_of_all_prompts(
    run: Run, prompts: PromptLibrary, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(name: str, **_: object) -> None:
        loaded.append(name)
        raise ModelError("stopped here")

    monkeypatch.setattr("spoton.models.load_model", load)
    run("serve", prompts.folder)
    run("serve", prompts.folder, "starter")
    run("serve", "--library", prompts.folder)
    run("serve", prompts.folder, "--library", "starter")
    run("serve", prompts.folder, "--model", "another")
    assert loaded == [*[str(tiny_model), DEFAULT_MODEL] * 2, "another"]


def test_a_port_in_use_is_an_error_like_any_other(run: Run, prompts: PromptLibrary, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("serve", prompts.folder, "--model", tiny_model, "--port", port, "--json")
    assert ran.code == 2 and ran.document["kind"] == "ServingError"
    assert (
        f"port {port}: address already in use" in ran.document["error"] and "--port" in ran.document["error"]
    )
