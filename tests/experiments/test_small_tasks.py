"""The table of the small tasks: means over seeds, and the columns of other tools where they have run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.cells import facts_of
from experiments.small_tasks import main, table
from spoton import Recipe
from spoton.tuning.budget import with_budget
from tests.tiny import tiny, toy_task


def _cell(seed: int, chosen: str, score: float) -> dict[str, Any]:
    arms = {"zero_shot": 30.0, "classical": 50.0, "prompt_tuning": score - 2, "transfer": score}
    return {
        "scores": {arm: {"test": one} for arm, one in arms.items()}, "metric": "accuracy", "seed": seed,
        "classical_on_all_rows": {"scores": {"test": {"accuracy": 60.0}}}, "majority": 25.0, "chosen": chosen,
        "retrieved": [{"name": "ag_news"}],
    }  # fmt: skip


def test_rows_are_means_over_seeds_and_adapt_is_the_chosen_arm(tmp_path: Path) -> None:
    (tmp_path / "trec.100.0.json").write_text(json.dumps(_cell(0, "transfer", 80.0)))
    (tmp_path / "trec.100.1.json").write_text(json.dumps(_cell(1, "prompt_tuning", 84.0)))
    (tmp_path / "trec.500.0.json").write_text(json.dumps(_cell(0, "transfer", 90.0)))
    (tmp_path / "trec.100.0.prompt.json").write_text("{")  # the record of an unfinished cell
    peers = tmp_path / "setfit"
    peers.mkdir()
    (peers / "trec.100.encoder.0.json").write_text(json.dumps({"test": 70.0}))
    small, large = table(tmp_path).splitlines()[2:]
    assert small == (
        "| trec | 100 | 25.0 | 30.0 ± 0.0 | 50.0 ± 0.0 | 60.0 ± 0.0 | 80.0 ± 2.8 | 82.0 ± 2.8 | ag_news "
        "| 81.0 ± 1.4 | 70.0 |  | 2 |"
    )
    assert large == "| trec | 500 | 25.0 | 30.0 | 50.0 | 60.0 | 88.0 | 90.0 | ag_news | 90.0 |  |  | 1 |"


@pytest.mark.parametrize(("word", "other"), [("--calibrate", "every"), ("--rank", "trial"), ("--seeds", "0")])
def test_finished_cells_of_another_recipe_or_ranking_are_refused(
    word: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    recipe = with_budget(model, toy_task(), Recipe.preset("decoder", seed=0))
    record = facts_of(model, toy_task(), recipe) | {"rank": "similarity", "scores": {}}
    (tmp_path / "trec.100.0.json").write_text(json.dumps(record))
    monkeypatch.setattr("experiments.small_tasks.model_of", lambda arguments: model)
    monkeypatch.setattr("experiments.small_tasks.load_task", lambda *name, **options: toy_task())
    # Cells of other seeds are refused as the cell itself is.
    seed = "0" if word == "--seeds" else "1"
    words = ["--tasks", "trec", "--sizes", "100", "--seeds", seed, "--cells", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["small_tasks", *words, word, other])
    if word == "--seeds":
        main()  # as it is: finished
        return
    with pytest.raises(SystemExit, match=f"another {'ranking' if word == '--rank' else 'recipe'}"):
        main()
