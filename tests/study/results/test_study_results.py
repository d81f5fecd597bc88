"""StudyResults as plain values: what contradicts itself is refused, and a damaged folder is told by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spoton.errors import DataError, StudyError
from spoton.study.results.collect import results_in
from spoton.study.results.study_results import Score
from tests.study.made import made


def test_a_round_trip(tmp_path: Path) -> None:
    before = replace(
        made(), candidates=("wic",), left_out=(("qqp", "rte", "why"),), families={"cb": "nli"},
        extra={"model-tuning": (Score("cb", None, 0, 90.0),)},
    )  # fmt: skip
    before.save(tmp_path)
    after = results_in(tmp_path)
    for name in (
        "sources",
        "targets",
        "validation",
        "test",
        "candidates",
        "left_out",
        "families",
        "extra",
        "metadata",
    ):
        assert getattr(after, name) == getattr(before, name)
    for kind in ("source_keys", "target_keys", "source_values"):
        a, b = getattr(before, kind), getattr(after, kind)
        assert set(a) == set(b) and all(np.array_equal(a[place], b[place]) for place in a)


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (Score("cb", "mnli", 9, float("nan")), "expected a number from 0 to 100"),
        (Score("cb", "mnli", 9, 101.0), "expected a number from 0 to 100"),
        (Score("cb", "drop", 9, 50.0), "a score of cb from drop, seed 9"),
        (Score("wic", None, 9, 50.0), "a score of wic from scratch, seed 9"),
        (Score("cb", "mnli", 0, 50.0), "more than one score"),
    ],
)
def test_scores_that_contradict_the_study(score: Score, told: str) -> None:
    whole = made()
    with pytest.raises(DataError, match=told):
        replace(whole, validation=(*whole.validation, score))


def test_test_scores_are_reported_only_if_there_are_both_kinds() -> None:
    whole = made()
    assert whole.reported_split == "test"
    scratch = tuple(one for one in whole.test if one.source is None)
    assert replace(whole, test=scratch).reported_split == "validation"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"format": "other"}),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "test"}),
        lambda text: json.dumps(json.loads(text) | {"left_out": [["a"]]}),
        lambda text: json.dumps(json.loads(text) | {"validation": [{"x": 1}]}),
    ],
)
def test_damaged_folders(tmp_path: Path, damage: Any) -> None:
    path = made().save(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(StudyError, match=r"results\.json"):
        results_in(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="spoton study import"):
        results_in(tmp_path)
    made().save(tmp_path)
    (tmp_path / "prompts.safetensors").unlink()
    with pytest.raises(StudyError, match=r"prompts\.safetensors"):
        results_in(tmp_path)
