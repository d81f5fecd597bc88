"""A task in words: of the catalog with the label words of its form, of a file from its columns and labels."""

from pathlib import Path

import pytest

from spoton.errors import DataError
from spoton.tasks import list_tasks, load_task_file, read_definition
from spoton.tasks.catalog import task_info
from spoton.tasks.instruction import MOST_NAMED, make_instruction


def test_the_answers_have_the_words_of_the_form() -> None:
    info = task_info("mnli")
    assert "Answer entailment if it does, contradiction if" in info.asked
    assert "Answer Yes if it does, No if" in info.in_form("natural").asked


@pytest.mark.parametrize("form", ["t5", "natural"])
def test_every_task_says_what_it_asks(form: str) -> None:
    for info in list_tasks():
        said = info.in_form(form)  # type: ignore[arg-type]  # both are forms
        assert said.asked and "{" not in said.asked and said.asked[-1] in ".?", info.name
        if 2 <= len(said.labels or ()) <= 6:
            assert all(word in said.asked for word in said.labels or ()), info.name


def test_an_instruction_names_labels_of_its_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "name: mine\ndoc_to_text: '{{ a }}'\ndoc_to_target: '{{ b }}'\nlabels: [bad, good]\nmetrics: [accuracy]\n"
    for more, message in (
        ("instruction: 'Answer {god}.'\n", r"instruction names god; expected labels of the task: bad, good"),
        ("natural: {labels: {god: Yes}}\n", r"natural\.labels"),
        ("natural: {doc_to_text: [a, b]}\n", r"natural\.doc_to_text has 2 templates"),
    ):
        path.write_text(text + more)
        with pytest.raises(DataError, match=message):
            read_definition(path)


def test_a_file_is_described_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "mail.csv"
    path.write_text("subject,body,star_rating\n" + "".join(f"s{i},b{i},{'ab'[i % 2]}\n" for i in range(20)))
    task = load_task_file(path, template="{{ subject }}: {{ body }}", target="star_rating")
    assert task.instruction == "Read the subject and the body and give the star rating. Answer a or b."
    assert load_task_file(path, input="body", target="star_rating").instruction.startswith(
        "Read the body and"
    )


def test_many_answers_are_not_listed() -> None:
    assert (
        make_instruction([], "class", [str(i) for i in range(MOST_NAMED + 1)])
        == "Read the text and give the class."
    )
