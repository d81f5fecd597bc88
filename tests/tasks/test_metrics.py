"""Metrics against values derived by hand, and against scikit-learn and scipy on random answers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from spoton.errors import DataError
from spoton.tasks.metrics import METRICS, compute

LABELS = ["no", "yes", "maybe"]
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)


def score(
    name: str, predictions: list[str | None], targets: list[str], labels: list[str] | None = None
) -> float:
    return compute([name], predictions, targets, labels)[name]


@given(pairs)
def test_classification_agrees_with_sklearn(answers: list[tuple[str, str]]) -> None:
    said, true = [a for a, _ in answers], [b for _, b in answers]
    found = compute(["accuracy", "macro_f1", "matthews"], said, true, LABELS)
    assert found["accuracy"] == pytest.approx(100 * sk.accuracy_score(true, said))
    expected = sk.f1_score(true, said, labels=LABELS, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(100 * expected)
    # Gorodkin 2004, eq. 8, from the counts.
    n, right = len(true), sum(map(str.__eq__, said, true))
    cov = right * n - sum(said.count(k) * true.count(k) for k in LABELS)
    spread = (n * n - sum(said.count(k) ** 2 for k in LABELS)) * (
        n * n - sum(true.count(k) ** 2 for k in LABELS)
    )
    assert found["matthews"] == pytest.approx(100 * cov / math.sqrt(spread) if spread else 0.0)


numbers = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=40).filter(
    lambda rows: len({a for a, _ in rows}) > 1 and len({b for _, b in rows}) > 1
)


@given(numbers)
def test_correlations_agree_with_scipy(answers: list[tuple[int, int]]) -> None:
    said, true = [str(a / 10) for a, _ in answers], [str(b / 10) for _, b in answers]
    found = compute(["pearson", "spearman"], said, true)
    assert found["pearson"] == pytest.approx(100 * stats.pearsonr(*zip(*answers, strict=True)).statistic)
    assert found["spearman"] == pytest.approx(100 * stats.spearmanr(*zip(*answers, strict=True)).statistic)


def test_golden_classification() -> None:
    # no: P 1/2, R 1/1, F1 2/3. yes: P 1/1, R 1/2, F1 2/3. maybe: neither said nor meant, F1 0.
    said, true = ["no", "no", "yes"], ["no", "yes", "yes"]
    assert score("accuracy", said, true) == pytest.approx(200 / 3)
    assert score("macro_f1", said, true, LABELS) == pytest.approx(400 / 9)
    assert score("macro_f1", said, true) == pytest.approx(200 / 3)  # without labels: over those meant
    # TP 1, TN 1, FP 0, FN 1 of `yes`: (1*1 - 0*1) / sqrt(1 * 2 * 1 * 2) = 1/2.
    assert score("matthews", said, true) == pytest.approx(50)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_answer_counts_as_wrong(name: str) -> None:
    true = ["1", "2", "3", "4"]
    assert score(name, ["1", "2", "3", "4"], true, true) == pytest.approx(100)
    assert score(name, ["1", "2", "3", None], true, true) < 100
    assert score(name, [None] * 4, true, true) == 0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("nonsense", [None, "one", "nan", "inf", ""])
def test_answers_that_are_no_numbers_draw_a_correlation_to_zero(name: str, nonsense: str | None) -> None:
    # Three of four are numbers and perfectly correlated: 100 * 3/4.
    assert score(name, ["0", "2", "4", nonsense], ["0", "1", "2", "3"]) == pytest.approx(75)
    assert score(name, ["4", nonsense, nonsense, nonsense], ["0", "1", "2", "3"]) == 0


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews"])
def test_a_constant_answer_scores_zero_without_a_warning(name: str) -> None:
    assert score(name, ["2", "2", "2"], ["1", "2", "3"]) == 0


def test_golden_squad() -> None:
    true = ["the Eiffel Tower", "42 balls"]
    assert score("exact_match", ["Eiffel tower!", "42"], true) == 50
    # "42" against "42 balls": P 1, R 1/2, F1 2/3.
    assert score("token_f1", ["Eiffel tower!", "42"], true) == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert score("token_f1", ["a the"], ["an"]) == 100  # nothing is left of either
    assert score("token_f1", ["big big"], ["big"]) == pytest.approx(100 * 2 / 3)  # counted with multiplicity
    assert score("accuracy", ["the Eiffel Tower ", "42 balls"], true) == 50  # accuracy forgives nothing


def test_bad_calls() -> None:
    with pytest.raises(DataError, match="no examples"):
        compute(["accuracy"], [], [])
    with pytest.raises(DataError, match=r"'bleu'.*accuracy"):
        compute(["bleu"], ["a"], ["a"])
    with pytest.raises(DataError, match="'high'"):
        compute(["pearson"], ["1", "2"], ["1", "high"])
    with pytest.raises(ValueError, match="1 predictions for 2"):
        compute(["accuracy"], ["a"], ["a", "b"])
