"""The README says only what works: its commands parse, its targets exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spoton.cli.app import app

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    done = subprocess.run(
        [*shlex.split(line), "-n"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("spoton ")])
def test_commands_and_flags_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    verbs = words[:2] if words[0] in ("library", "tasks", "models") else words[:1]
    shown = CliRunner().invoke(app, [*verbs, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for flag in (word for word in words if word.startswith("--")):
        assert flag in shown.stdout


@pytest.mark.parametrize("line", ["spoton library list", "spoton tasks list"])
def test_commands_that_need_no_model_run(line: str) -> None:
    assert line in COMMANDS
    assert CliRunner().invoke(app, shlex.split(line)[1:]).exit_code == 0


@pytest.mark.parametrize("page", ["README.md", "docs/experiments.md", "docs/index.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    targets = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert targets
    for target in targets:
        assert ((CHECKOUT / page).parent / target).exists(), target
