"""What the experiment on wording changes in a task, and that its table is made of its cells."""

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
