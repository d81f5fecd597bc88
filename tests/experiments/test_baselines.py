"""The comparison with the paper's baselines: all arms at equal data, cells that run once, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import baselines
from experiments.baselines import ARMS, Bench, table
from spoton import PromptLibrary, Recipe, load_model, tune
from spoton.tasks import Task
from spoton.tasks.mixture import mix
from tests.tiny import WIDTH, tiny, tokenizer, toy_task

RECIPE = Recipe(length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4)
ROWS = toy_task()
SOURCE = toy_task(name="source", train=ROWS.train[:12])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tiny("llama").network.save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    model = load_model(str(tmp_path / "tiny"), dtype="float32")
    library = PromptLibrary(tmp_path / "library")
    library.add(tune(model, SOURCE, RECIPE).prompt)
    mixture: Task = mix("mixture-sources", [SOURCE, toy_task(name="other", train=ROWS.train[12:])], seed=0)
    return Bench(model, tmp_path / "cells", RECIPE, 1e-3, [library], mixture)


def cells(bench: Bench) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in bench.cells.glob("*.json")}


def test_every_arm_is_run_once_at_equal_data(bench: Bench) -> None:
    bench.run([toy_task()], [0, 1])
    found = cells(bench)
    assert set(found) == {f"toy.{arm}.{seed}.json" for arm in ARMS for seed in (0, 1)}
    assert len({cell["data"] for cell in found.values()}) == 1
    assert found["toy.spot.0.json"]["source"]["name"] == "source"
    assert found["toy.prompt-tuning.0.json"]["tuned_parameters"] == 4 * WIDTH
    for arm in ("model-tuning", "multi-task-model-tuning"):
        cell = found[f"toy.{arm}.1.json"]
        assert cell["tuned_parameters"] == bench.model.network.num_parameters()
        assert (cell["recipe"]["steps"], cell["recipe"]["batch_size"], cell["recipe"]["seed"]) == (4, 4, 1)
    assert found["toy.multi-task-model-tuning.0.json"]["history"][0]["step"] == 0
    assert not list(bench.cells.glob("*.checkpoint"))
    before = {path: path.stat().st_mtime_ns for path in bench.cells.rglob("*")}
    bench.run([toy_task()], [0, 1])
    assert {path: path.stat().st_mtime_ns for path in bench.cells.rglob("*")} == before
    for other in ({"steps": 6}, {"batch_size": 2}):
        bench.recipe = RECIPE.changed(**other)
        with pytest.raises(SystemExit, match="other rows, steps, batches or another model"):
            bench.run([toy_task()], [0])
    rows = table(bench.cells).splitlines()
    assert len(rows) == 2 + len(ARMS) and all("(2)" in row for row in rows[2:])
    ratio = bench.model.network.num_parameters() / (4 * WIDTH)
    assert rows[-1].endswith(f"| {ratio:,.0f} |") and rows[2].endswith("| 0 | 0 | - |")


def test_a_killed_cell_goes_on_and_gives_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.mixture = None
    bench.run([toy_task()], [0])
    whole = cells(bench)
    assert len(whole) == len(ARMS) - 1
    path = bench.path(toy_task(), "model-tuning", 0)
    path.unlink()

    def stop(*arguments: object, **others: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(baselines, "write_record", stop)
        bench.run([toy_task()], [0])
    assert path.with_suffix(".checkpoint").is_dir()
    bench.run([toy_task()], [0])
    assert cells(bench)[path.name] | {"seconds": 0} == whole[path.name] | {"seconds": 0}
    assert not path.with_suffix(".checkpoint").exists() and "not run" in table(bench.cells)
