"""What a run may do to the files at its `--out`. Interrupted runs are in `tests/faults/test_outputs.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.errors import SpotonError
from spoton.prompts import Card, SoftPrompt
from spoton.tuning.outputs import is_finished, remove_unfinished, require_free, save_unfinished


def a_prompt(score: float | None, seed: int = 0, **card: str) -> SoftPrompt:
    scores = {} if score is None else {"validation": {"accuracy": score}}
    facts = {
        "name": "n",
        "task": "t",
        "model": "m",
        "model_fingerprint": "f",
        "metric": "accuracy",
        "scores": scores,
    }
    return SoftPrompt(torch.full((2, 3), float(seed)), Card.model_validate(facts | card))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "p.safetensors"


def test_what_may_be_replaced(out: Path) -> None:
    for overwrite in (False, True):
        for resume in (False, True):
            require_free(out, overwrite=overwrite, resume=resume)  # nothing is there
    a_prompt(50).save(out)
    require_free(out, overwrite=False, resume=True)  # an interrupted run left it
    require_free(out, overwrite=True, resume=False)
    with pytest.raises(SpotonError, match=r"exists\. Choose"):
        require_free(out, overwrite=False, resume=False)
    out.with_suffix(".json").write_text("{}")
    assert is_finished(out)
    with pytest.raises(SpotonError, match="and is finished"):
        require_free(out, overwrite=False, resume=True)
    require_free(out, overwrite=True, resume=False)


@pytest.mark.parametrize(
    ("there", "new", "wins"), [(60, 50, 0), (50, 60, 1), (50, 50, 1), (50, None, 0), (None, 1, 1)]
)
def test_the_better_of_two_unfinished_ones_stays(
    there: float | None, new: float | None, wins: int, out: Path
) -> None:
    a_prompt(there, seed=0).save(out)
    assert save_unfinished(a_prompt(new, seed=1), out) == out
    assert SoftPrompt.load(out).value[0, 0] == wins


def test_scores_of_other_rows_are_not_compared(out: Path) -> None:
    a_prompt(90, seed=0, data_hash="others").save(out)
    save_unfinished(a_prompt(10, seed=1), out)
    assert SoftPrompt.load(out).value[0, 0] == 1


def test_a_damaged_one_gives_way(out: Path) -> None:
    out.write_bytes(b"damaged")
    save_unfinished(a_prompt(None, seed=1), out)
    assert SoftPrompt.load(out).value[0, 0] == 1


def test_next_to_a_finished_one_there_is_another_place(out: Path) -> None:
    a_prompt(10).save(out)
    out.with_suffix(".json").write_text("{}")
    place = save_unfinished(a_prompt(90, seed=1), out)
    assert place.name == "p.interrupted.safetensors" and SoftPrompt.load(out).value[0, 0] == 0
    remove_unfinished(out)
    remove_unfinished(out)
    assert not place.exists() and out.exists()
