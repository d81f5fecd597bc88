"""The folder that a comparison keeps next to its prompt until it is finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.errors import SpotonError
from spoton.prompts import Card, SoftPrompt
from spoton.transfer.work_folder import finished_parts, remove_parts, require_out, work_folder

HASHED = "0123456789abcdef"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A prompt as an interrupted comparison leaves it, with an empty work folder."""
    card = Card(name="p", task="toy", model="tiny-llama", model_fingerprint="f00d", recipe={"length": 2})
    SoftPrompt(torch.zeros(2, 3), card).save(tmp_path / "p.safetensors")
    (tmp_path / "p.work").mkdir()
    return tmp_path / "p.safetensors"


@pytest.mark.parametrize(
    "begun", [f"{HASHED}.safetensors", f"untuned-{HASHED}.safetensors", f"{HASHED}.rate1.checkpoint"]
)
def test_only_runs_that_were_begun_let_a_prompt_be_replaced(out: Path, begun: str) -> None:
    (work_folder(out) / begun).touch()
    require_out(out, overwrite=False)
    (work_folder(out) / begun).unlink()
    for name in (
        "budget.json",
        f"test-{HASHED}.json",
        "news.safetensors",
    ):  # planned steps, a test, somebody's file
        (work_folder(out) / name).touch()
    with pytest.raises(SpotonError, match="--overwrite"):
        require_out(out, overwrite=False)
    require_out(out, overwrite=True)


def test_all_that_runs_and_their_dead_writers_leave_is_removed(out: Path) -> None:
    for name in (
        "budget.json", f"{HASHED}.json", f"{HASHED}.safetensors", f"{HASHED}.checkpoint", f"{HASHED}.rate1.checkpoint",
        f"untuned-{HASHED}.json", f"untuned-{HASHED}.safetensors", f"halving-{HASHED}.json", f"test-{HASHED}.json",
        f"halving-{HASHED}.safetensors", f"trial-{HASHED}.scores", f".spoton-{HASHED}.tmp",
    ):  # fmt: skip
        (work_folder(out) / name).touch()
    assert str(work_folder(out)) in finished_parts(out)
    remove_parts(out)
    assert not work_folder(out).exists() and finished_parts(out) == "" == finished_parts(None)
    assert out.exists()
    remove_parts(out)


def test_the_files_of_others_stay(out: Path) -> None:
    for name in ("notes.txt", f"{HASHED}.json"):
        (work_folder(out) / name).touch()
    remove_parts(out)
    assert [path.name for path in work_folder(out).iterdir()] == ["notes.txt"]
