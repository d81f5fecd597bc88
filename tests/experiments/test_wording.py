"""What the experiment on wording changes in a task, and that its table is made of its cells."""

import json
from pathlib import Path

import pytest

from experiments import wording
from tests.tiny import toy_task


def test_choices_are_named_and_left_out() -> None:
    task = toy_task(("yes", "maybe", "no"), name="trec")
    assert wording.with_choices("Who?\nAsks for:", task) == "Who?\nChoices: yes, maybe or no\nAsks for:"
    asked = wording.with_question("Who?\nAsks for:", task)
    assert asked.startswith("Who?\nQuestion: What does this ask for: abbreviation, ") and asked.endswith(
        "?\nAnswer:"
    )
    assert wording.without_choices(asked, task) == "Who?\nQuestion: What does this ask for?\nAnswer:"
    said = "It rained.\nQuestion: It was wet, or not: it was. Yes, Maybe or No?\nAnswer:"
    assert wording.without_choices(said, task) == "It rained.\nQuestion: It was wet, or not: it was.\nAnswer:"


def test_other_label_words_are_also_those_that_the_question_names() -> None:
    task = toy_task(("Yes", "Maybe", "No"))
    asked = wording.reworded(task, lambda text, _: text.replace("\nVerdict:", " Yes, Maybe or No?\nAnswer:"))
    changed = wording.other_words(asked, {"Yes": "True", "No": "False", "Maybe": "Neither"})
    assert changed.labels == ("True", "Neither", "False")
    assert changed.train[0].input.endswith(" True, Neither or False?\nAnswer:")
    assert changed.train[0].target == "True"


def test_the_table_has_a_row_for_each_task_with_a_cell() -> None:
    lines = wording.table(wording.CELLS, tuned=False).splitlines()
    assert lines[0].startswith("| task | metric | one label | t5 | natural |")
    assert any(line.startswith("| sst2 | accuracy |") for line in lines)


def test_cells_of_another_recipe_are_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = wording.recipe_of(0).changed(length=32)
    for seed, recipe in ((None, None), (0, other.model_dump(mode="json"))):
        file = wording.Cell("sst2", "natural", seed).file
        (tmp_path / file).write_text(json.dumps({"seed": seed, "recipe": recipe}))
    monkeypatch.setattr("sys.argv", ["wording", "--cells", str(tmp_path), "--tasks", "trec"])
    with pytest.raises(SystemExit, match="another recipe"):
        wording.main()
    wording.require_alike(wording.CELLS, wording.planned)  # the published cells have one
