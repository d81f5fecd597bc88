"""The record of a run: complete JSON, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spoton.errors import SpotonError
from spoton.tuning.record import versions, write_record


def test_a_record_is_readable_json(tmp_path: Path) -> None:
    path = write_record(tmp_path / "run.json", {"task": "größer", "scores": {"accuracy": 81.25}})
    assert json.loads(path.read_text(encoding="utf-8")) == {"task": "größer", "scores": {"accuracy": 81.25}}
    assert "größer" in path.read_text(encoding="utf-8") and list(tmp_path.iterdir()) == [path]


def test_versions_name_what_decides_numbers() -> None:
    found = versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or torch.__version__.startswith(
        found["torch"]
    )
    assert {"python", "spoton", "transformers", "numpy"} <= found.keys()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpotonError, match="file"):
        write_record(tmp_path / "file" / "run.json", {})
