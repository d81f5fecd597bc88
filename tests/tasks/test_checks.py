"""What is odd about rows."""

from dataclasses import replace

from spoton.tasks import Example, Task
from spoton.tasks.checks import oddities
from tests.tiny import toy_task


def with_labels(*labels: str) -> Task:
    rows = tuple(Example(f"t{i}", labels[i % len(labels)]) for i in range(12))
    return replace(toy_task(), train=rows, validation=rows, test=(), labels=tuple(sorted(set(labels))))


def test_a_clean_task_has_none() -> None:
    assert oddities(toy_task()) == ()
    assert oddities(toy_task(labels=None)) == ()


def test_labels_that_look_alike() -> None:
    (told,) = oddities(with_labels("Good", "good", "bad"))
    assert "'Good' (8 rows) and 'good' (8 rows)" in told and "bad" not in told
    (hidden,) = oddities(with_labels("yes", "yes\u200b", "no"))
    assert "'yes\\u200b'" in hidden
    (accents,) = oddities(with_labels("caf\u00e9", "cafe\u0301", "bar"))
    assert "\\xe9" in accents and "\\u0301" in accents
    assert oddities(with_labels("1", "1.0", "2"))


def test_one_input_with_two_labels() -> None:
    task = replace(toy_task(), train=(Example("same", "yes"), Example("same", "no"), Example("b", "yes")))
    assert any("'same' (no, yes)" in told and told.startswith("1 of ") for told in oddities(task))


def test_a_label_that_nobody_teaches() -> None:
    task = replace(toy_task(("yes", "no")), labels=("yes", "no", "maybe"))
    assert "No training row has the label 'maybe'. It" in oddities(task)[0]
    asked = replace(task, test=(Example("x", "maybe"),))
    assert "though validation or test rows have" in oddities(asked)[0]


def test_signs_at_the_ends_of_labels_tell_them_apart() -> None:
    assert oddities(with_labels("A", "A-", "B-", "B")) == ()
    assert oddities(with_labels("inf", "-inf")) == ()
    assert oddities(with_labels("not_related", "not-related", "related"))


def test_closing_and_quotation_marks_do_not() -> None:
    for one, other in (
        ("good", "good."),
        ("good", '"good"'),
        ("don't know", "don\u2019t know"),
        ("bad!", "bad"),
    ):
        assert "'maybe'" not in oddities(with_labels(one, other, "maybe"))[0]
    assert oddities(with_labels("!", "!!", "?")) == ()


def test_labels_that_stand_for_no_value() -> None:
    (told,) = oddities(with_labels("yes", "no", "NaN"))
    assert told.startswith("The label 'NaN' (8 rows) is what programs write for a cell without a value.")
    assert oddities(with_labels("yes", "no", "none")) == ()


def test_labels_that_list_others() -> None:
    (told,) = oddities(with_labels("news", "sport", "news; sport"))
    assert told.startswith("1 of 3 labels is a list of others, such as 'news; sport'")
    assert "3 labels is a list" in oddities(with_labels("['a']", "['b']", "['a', 'b']"))[0]
    assert oddities(with_labels("Card, prepaid", "Other", "1,000", "1")) == ()
