"""Runs the tutorial's notebook in an empty folder and keeps its outputs: `make tutorial`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

import nbformat
from nbclient import NotebookClient

TUTORIAL = Path(__file__).parents[1] / "tutorial.ipynb"


def run(folder: Path) -> nbformat.NotebookNode:
    """Returns the notebook with the outputs of a run in `folder`.

    Raises:
        CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(TUTORIAL, as_version=4)
    settings = {"SPOTON_LIBRARY": str(folder / "library"), "JUPYTER_PLATFORM_DIRS": "1"}
    with mock.patch.dict(os.environ, settings):
        client = NotebookClient(
            notebook, timeout=900, resources={"metadata": {"path": str(folder)}}, record_timing=False
        )
        client.execute()
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder))
    for cell in done.cells:
        if cell.cell_type == "code":  # this machine's progress bars and warnings are not part of the page
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    done.metadata["language_info"] = {"name": "python"}  # without the version of this machine's Python
    nbformat.write(done, TUTORIAL)
