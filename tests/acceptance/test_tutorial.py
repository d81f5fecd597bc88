"""docs/tutorial.ipynb runs from top to bottom, and shows outputs of such a run."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from spoton.errors import DownloadError
from spoton.models import pull_model
from tests.acceptance.pages import CHECKOUT

nbformat = pytest.importorskip("nbformat", reason="the tutorial needs spoton[docs]")
pytest.importorskip("nbclient", reason="the tutorial needs spoton[docs]")
pytest.importorskip("fastapi", reason="the tutorial needs spoton[serve]")

TUTORIAL = CHECKOUT / "docs" / "tutorial.ipynb"


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_shows_an_output() -> None:
    assert all(cell.outputs for cell in code_cells(nbformat.read(TUTORIAL, as_version=4)))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("default")  # of Jupyter's packages
def test_it_runs_and_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        pull_model("smollm2-135m")
    except DownloadError as error:
        pytest.skip(f"the embedded model cannot be fetched here: {error}")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(CHECKOUT / "src"), os.environ.get("PYTHONPATH", "")])
    )
    spec = importlib.util.spec_from_file_location(
        "run_tutorial", CHECKOUT / "docs" / "site" / "run_tutorial.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    shown = code_cells(nbformat.read(TUTORIAL, as_version=4))
    ran = code_cells(script.run(tmp_path))
    # Scores differ with processor and threads; what does not is compared.
    stable = [i for i, cell in enumerate(shown) if "stable" in cell.metadata.get("tags", [])]
    assert len(stable) == 2
    assert [printed(ran[i]) for i in stable] == [printed(shown[i]) for i in stable]
    assert [len(printed(cell).splitlines()) for cell in ran] == [
        len(printed(cell).splitlines()) for cell in shown
    ]
    assert printed(ran[-1]).splitlines()[-1] == "exit code 0"
