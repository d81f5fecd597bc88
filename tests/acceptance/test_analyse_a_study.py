"""The page that leads from somebody's table to a figure: every command runs, on the table that it shows."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spoton.cli.app import app
from tests.acceptance.pages import CHECKOUT, commands, words
from tests.study.made import made

PAGE = CHECKOUT / "docs" / "how-to" / "analyse-a-study.md"


def test_the_page_on_analysing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: shown.append(url) or True)  # there is no display
    table = PAGE.read_text().split("   ```\n", 2)[1]
    Path("scores.csv").write_text("".join(f"{line.strip()}\n" for line in table.splitlines()))
    Path("families.csv").write_text("task,family\nMNLI,nli\nCB,nli\n")
    Path("prompts").mkdir()
    for task in ("mnli", "cb", "rte"):
        np.save(f"prompts/{task}.npy", np.random.default_rng(0).standard_normal((4, 8)))
    made().save(Path("mine"))
    # Steps of the page stand in a list, so their lines are indented.
    lines = [line.strip() for line in PAGE.read_text().splitlines() if line.strip().startswith("$ spoton ")]
    assert len(lines) >= 7 and set(commands(PAGE, "spoton")) <= {line.removeprefix("$ ") for line in lines}
    for line in lines:
        ran = CliRunner().invoke(app, words(line.removeprefix("$ "))[1:], catch_exceptions=False)
        assert ran.exit_code == 0, f"{line}\n{ran.output}"
    assert shown == [(tmp_path / "report" / "index.html").as_uri()]
    assert Path("theirs/report_figures/transfer.pdf").read_bytes().startswith(b"%PDF")
    pairs = Path("theirs/report_tables/pairs.csv").read_text()
    assert "MNLI,CB,97,1.1,3,4.3" in pairs and "58.9" in pairs
