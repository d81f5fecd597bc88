"""What targets are taken for, and that the reason is told."""

import pytest

from spoton.tasks.targets import labels_of, metrics_with


def repeated(*targets: str, times: int) -> list[str]:
    return [target for target in targets for _ in range(times)]


@pytest.mark.parametrize(
    ("targets", "closed", "words"),
    [
        (repeated("a", "b", times=5), True, "read as labels: 2 different ones, 5.0 rows each"),
        (repeated(*map(str, range(77)), times=4), True, "read as labels: 77"),
        (repeated(*(f"intent {i}" for i in range(25)), times=6), True, "read as labels: 25"),
        (repeated("a b c d e f", "g h i j k l", times=4), True, "read as labels"),
        (repeated("a b c d e f", "g h i j k l", times=2), False, "more than 5 words"),
        ([f"answer {i}" for i in range(30)], False, "open text"),
        ([str(i / 7) for i in range(30)], False, "numbers, scored by correlation"),
        (repeated(*(str(i) for i in range(18, 90)), times=6), False, "numbers"),  # ages, not codes
    ],
)
def test_a_guess_comes_with_its_reason(targets: list[str], closed: bool, words: str) -> None:
    labels, reason = labels_of(targets, None)
    assert (labels is not None) is closed and words in reason and "--labels" in reason


@pytest.mark.parametrize("form", ["{:,}", "${:,}", "{} %", "{},5"])
def test_numbers_that_are_not_plain_are_open_text_with_advice(form: str) -> None:
    reason = labels_of([form.format(i * 1370) for i in range(30)], None)[1]
    assert "open text" in reason and "To score them as numbers, write " in reason
    for open_text in ("2024-01-{}", "item {}", "{}:30"):
        assert "numbers" not in labels_of([open_text.format(i) for i in range(30)], None)[1]


def test_what_is_asked_for_is_no_guess() -> None:
    targets = [str(i / 7) for i in range(30)]
    assert labels_of(targets, "auto") == (tuple(sorted(targets)), "")
    assert labels_of(["a", "b"] * 9, "none") == (None, "")
    assert labels_of(["a"], ("b", "a")) == (("b", "a"), "")


def test_the_reason_names_the_metric_that_was_asked_for() -> None:
    numbers = [str(i / 7) for i in range(30)]
    assert "numbers, scored by exact_match:" in labels_of(numbers, None, ("exact_match", "pearson"))[1]
    assert "numbers, scored by correlation:" in labels_of(numbers, None, ("spearman",))[1]


def test_the_metrics_that_come_with_a_main_one() -> None:
    assert metrics_with("pearson", None) == ("pearson", "spearman")
    assert metrics_with("token_f1", None) == ("token_f1", "exact_match")
    assert metrics_with("rouge1", None) == ("rouge1",)
    assert metrics_with("matthews", ["a", "b"]) == ("matthews", "accuracy", "macro_f1")
