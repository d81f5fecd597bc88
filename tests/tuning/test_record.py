"""The record of a run: complete JSON, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spoton.errors import SpotonError
from spoton.prompts import Card, SoftPrompt
from spoton.tuning.record import require_place, save_prompt, versions, write_record
from tests.tiny import draw


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


@pytest.mark.parametrize("name", ["p.json", "p.png", "p.checkpoint", "p.work", "reviews.csv", "p", "p.v1"])
def test_a_prompt_is_never_where_other_files_go(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("what was there")
    with pytest.raises(SpotonError, match=rf"{name} cannot be.*--out {tmp_path}/\w+\.safetensors\."):
        require_place(tmp_path / name)
    assert (tmp_path / name).read_text() == "what was there"


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.json", '[{"text": "A film.", "label": "good"}]'), ("p.json", "not JSON"), ("p.png", "a picture")],
)
def test_files_of_others_are_not_replaced_by_record_or_picture(
    tmp_path: Path, name: str, content: str
) -> None:
    """`tune reviews.json --out reviews.safetensors` would lose the data."""
    (tmp_path / name).write_text(content)
    with pytest.raises(SpotonError, match=rf"{name} exists and is not of an earlier run.*another --out"):
        require_place(tmp_path / "p.safetensors")
    assert (tmp_path / name).read_text() == content


def test_files_of_an_earlier_run_may_be_replaced(tmp_path: Path) -> None:
    write_record(tmp_path / "p.json", {"task": "a", "model": "b", "scores": {}})
    (tmp_path / "p.png").write_text("a curve")
    require_place(tmp_path / "p.safetensors")


@pytest.mark.parametrize("place", [".", "..", "/", ""])
def test_a_folder_is_no_place_for_a_prompt(place: str) -> None:
    with pytest.raises(SpotonError, match=r"prompt\.safetensors"):
        require_place(Path(place))


def test_a_good_place_is_left_as_it_was(tmp_path: Path) -> None:
    require_place(tmp_path / "new" / "p.safetensors")
    assert list((tmp_path / "new").iterdir()) == []


def test_the_record_of_an_earlier_prompt_goes_before_it_is_replaced(tmp_path: Path) -> None:
    write_record(tmp_path / "p.json", {"scores": {}})
    prompt = SoftPrompt(draw(2, 3), Card(name="p", task="toy", model="tiny", model_fingerprint="f00d"))
    save_prompt(prompt, tmp_path / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
