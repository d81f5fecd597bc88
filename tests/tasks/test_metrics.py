"""Metrics against values derived by hand, and against scikit-learn and scipy on random answers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from spoton.errors import DataError
from spoton.prompts import Card
from spoton.tasks import Example
from spoton.tasks.metrics import METRICS, compute, mean_score
from spoton.tasks.text_metrics import PACKAGES

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


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"f1", "referent_accuracy"} - PACKAGES.keys()))
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
    with pytest.raises(DataError, match=r"'blue'.*accuracy"):
        compute(["blue"], ["a"], ["a"])
    with pytest.raises(DataError, match=r"'mean'.*accuracy"):
        compute(["mean"], ["a"], ["a"])
    with pytest.raises(DataError, match="F1 needs two labels"):
        compute(["f1"], ["a"], ["a"], ["a", "b", "c"])
    with pytest.raises(DataError, match="Give `compute` the examples"):
        compute(["referent_accuracy"], ["a"], ["a"])
    with pytest.raises(DataError, match="'high'"):
        compute(["pearson"], ["1", "2"], ["1", "high"])
    with pytest.raises(ValueError, match="1 predictions for 2"):
        compute(["accuracy"], ["a"], ["a", "b"])


@given(st.lists(st.tuples(st.sampled_from(["no", "yes"]), st.sampled_from(["no", "yes"])), min_size=1))
def test_f1_of_two_labels_agrees_with_sklearn(answers: list[tuple[str, str]]) -> None:
    said, true = [a for a, _ in answers], [b for _, b in answers]
    expected = sk.f1_score(true, said, pos_label="yes", zero_division=0)
    assert score("f1", said, true, ["no", "yes"]) == pytest.approx(100 * expected)


def test_f1_counts_what_is_no_label_as_the_wrong_one() -> None:
    # "maybe" for yes is a missed yes, None for no is a wrong yes: TP 1, FP 1, FN 1.
    said, true = ["yes", "maybe", None, "no"], ["yes", "yes", "no", "no"]
    assert score("f1", said, true, ["no", "yes"]) == pytest.approx(100 * 2 / 4)


def test_the_mean_of_metrics() -> None:
    found = compute(["mean", "f1", "accuracy"], ["yes", "no"], ["yes", "yes"], ["no", "yes"])
    assert list(found) == ["mean", "f1", "accuracy"]
    assert found["mean"] == pytest.approx((200 / 3 + 50) / 2)
    assert mean_score({"cb": 90.0, "copa": 70.0}) == 80


def ask(name: str, predictions: list[str | None], examples: list[Example]) -> float:
    targets = [example.target for example in examples]
    return compute([name], predictions, targets, examples=examples)[name]


def test_several_right_answers_and_several_examples_of_one_question() -> None:
    both = ("Oslo", "the city of Oslo")
    examples = [
        Example("q1", "Oslo", references=both, question="1"),
        Example("q1", "the city of Oslo", references=both, question="1"),
        Example("q2", "Bergen", references=("Bergen",), question="2"),
    ]
    # ReCoRD counts question 1 once; "City of Oslo." is right but for an article, a mark and a capital.
    assert ask("exact_match", ["City of Oslo.", "City of Oslo.", "Trondheim"], examples) == 50
    # "in Oslo": against "Oslo" P 1/2, R 1, F1 2/3; against "city of Oslo" 1 of 2 and 3 words, F1 2/5.
    assert ask("token_f1", ["in Oslo", "in Oslo", "Bergen"], examples) == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_multirc_wants_every_answer_of_a_question() -> None:
    examples = [
        Example("", target, question=key) for target, key in (("True", "a"), ("False", "a"), ("True", "b"))
    ]
    assert ask("question_exact_match", ["True", "True", "True"], examples) == 50
    assert ask("question_exact_match", ["True", "False", None], examples) == 50
    assert ask("question_exact_match", ["True", "False", "True"], examples) == 100


@pytest.mark.parametrize(
    ("said", "candidate", "same"),
    [
        ("the bunny", "Fuzzy bunny", True),
        ("my fuzzy bunny", "bunny", True),
        ("Bob", "Bob's hat", False),
        ("Bob's hat", "his hat", False),
        ("Ann", "Bob", False),
    ],
)
def test_the_rule_of_wsc(said: str, candidate: str, same: bool) -> None:
    told = [Example("", candidate, references=(answer,)) for answer in ("True", "False")]
    assert [ask("referent_accuracy", [said], [example]) for example in told] == [100 * same, 100 * (not same)]
    # No answer is wrong even where the candidate is not the referent.
    assert [ask("referent_accuracy", [none], [example]) for example in told for none in (None, "the ")] == [
        0
    ] * 4


def test_bleu() -> None:
    pytest.importorskip("sacrebleu")
    assert score("bleu", ["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(100)
    # 1- to 4-grams of 4 and 5 words: 4/4, 3/3, 2/2, 1/1, and brevity exp(1 - 5/4).
    assert score("bleu", ["a b c d"], ["a b c d e"]) == pytest.approx(100 * math.exp(-1 / 4))
    two = [Example("", "a b c d e", references=("a b c d e", "a b c d"))]
    assert ask("bleu", ["a b c d"], two) == pytest.approx(100)
    assert score("bleu", [None], ["a b c d"]) == 0


def test_a_perfect_bleu_is_a_percentage_that_a_card_takes() -> None:
    pytest.importorskip("sacrebleu")
    found = score("bleu", ["the cat sat on the mat"], ["the cat sat on the mat"])
    card = Card(name="a", task="b", model="m", model_fingerprint="f", scores={"test": {"bleu": found}})
    assert card.scores["test"]["bleu"] == 100


@given(
    st.lists(
        st.tuples(*[st.lists(st.sampled_from("the cat sat. on, mats".split()), max_size=9)] * 3), min_size=1
    )
)
def test_bleu_agrees_with_sacrebleu(rows: list[tuple[list[str], list[str], list[str]]]) -> None:
    corpus_bleu = pytest.importorskip("sacrebleu").corpus_bleu
    texts = [[" ".join(words) or "a" for words in column] for column in zip(*rows, strict=True)]
    said = ["" if words == "a" else words for words in texts[0]]
    examples = [Example("", a, references=(a, b)) for a, b in zip(texts[1], texts[2], strict=True)]
    expected = corpus_bleu(said, texts[1:], tokenize="intl", smooth_method="exp").score
    assert ask("bleu", said, examples) == pytest.approx(expected)


def test_rouge() -> None:
    pytest.importorskip("rouge_score")
    # "the cat sat" against "the cat slept here": 2 of 3 and 4 words, 1 of 2 and 3 pairs; no stem is shared else.
    found = compute(["rouge1", "rouge2", "rougeLsum"], ["the cat sat"], ["the cat slept here"])
    expected = {"rouge1": 100 * 4 / 7, "rouge2": 100 * 2 / 5, "rougeLsum": 100 * 4 / 7}
    assert found == pytest.approx(expected)
    assert score("rouge1", ["cats", None], ["cat", "dog"]) == 50
