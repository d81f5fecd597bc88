"""What goes into the starter library, and what its table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.starter_library import RECIPE, SOURCES, Source, families, shipped, table, tuned_source
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.tasks.catalog import list_tasks
from tests.tiny import WIDTH, draw, tiny, toy_task


def record(**changes: Any) -> dict[str, Any]:
    return {
        "task": "sst2", "family": "sentiment", "metric": "accuracy", "steps": 200, "majority": 50.0, "bare": 61.0,
        "test": 80.0, "interval": [76.0, 84.0], "uncalibrated": 79.0, "cpu_seconds": 600.0, "left_out": "",
    } | changes  # fmt: skip


def test_a_source_ships_if_it_is_learned_and_may_be_passed_on() -> None:
    assert shipped(Source("sst2", 1), record()) == ""
    assert shipped(Source("sst2", 1), record(test=54.9)) == "+4.9 points to the best constant answer"
    assert shipped(Source("sick", 1, forbids="not for commercial use"), record()) == "not for commercial use"


def test_every_source_is_a_task_of_the_catalog_and_no_bias_probe() -> None:
    names = {source.task for source in SOURCES}
    assert len(names) == len(SOURCES) >= 16
    assert names <= {info.name for info in list_tasks()}
    assert not [name for name in names if "bias_type" in name]
    assert not names & {"news_sentiment", "disambiguation_qa"}  # targets of the demo and of the experiment


def test_a_record_says_what_the_table_needs(tmp_path: Path) -> None:
    recipe = RECIPE.changed(
        length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, warmup=1, init="vocabulary"
    )
    prompt, found = tuned_source(tiny("llama"), toy_task(), recipe, tmp_path / "c.checkpoint")
    assert prompt.card.scores["test"][found["metric"]] == found["test"]
    assert [entry["step"] for entry in found["evaluations"]] == [2, 4]
    (tmp_path / "sst2.json").write_text(json.dumps(found | {"task": "sst2", "left_out": "too little"}))
    lines = table(tmp_path).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| sst2 | ")
    assert lines[2].endswith("| no: too little |")


@pytest.mark.parametrize("interval", [None, [76.0, 84.0]])
def test_the_table_shows_an_interval_where_there_is_one(tmp_path: Path, interval: list[float] | None) -> None:
    (tmp_path / "sst2.json").write_text(json.dumps(record(interval=interval)))
    assert ("(76.0 to 84.0)" in table(tmp_path)) == (interval is not None)


def test_the_nearest_of_the_same_family_are_bold(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    start, near, far = draw(2, WIDTH, seed=1), draw(2, WIDTH, seed=2), draw(2, WIDTH, seed=3)
    for name, family, own in (("a", "nli", near), ("b", "nli", near + 0.01), ("c", "topic", far)):
        card = Card(name=name, task=name, family=family, model="tiny", model_fingerprint="f00d")
        library.add(SoftPrompt(start + own, card, key=start + own, start=start))
    a, b, c = families(library).splitlines()[2:]
    assert a.startswith("| a | nli | **b 1.00**, c ") and b.startswith("| b | nli | **a 1.00**, c ")
    assert c.startswith("| c | topic | ") and "**" not in c
