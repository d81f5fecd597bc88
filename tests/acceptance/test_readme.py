"""The README's first steps work: its make targets exist, and its commands that need no model run."""

from __future__ import annotations

import subprocess

import pytest
from typer.testing import CliRunner

from spoton.cli.app import app
from tests.acceptance.pages import CHECKOUT, commands, words

README = CHECKOUT / "README.md"


@pytest.mark.parametrize("line", commands(README, "make"))
def test_make_targets_exist(line: str) -> None:
    done = subprocess.run([*words(line), "-n"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["spoton library list", "spoton tasks list"])
def test_commands_that_need_no_model_run(line: str) -> None:
    assert line in commands(README, "spoton")
    assert CliRunner().invoke(app, words(line)[1:]).exit_code == 0
