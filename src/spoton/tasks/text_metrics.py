"""Metrics of free text, from 0 to 1: SQuAD's, those of MultiRC, ReCoRD and WSC in SuperGLUE, BLEU and ROUGE.

They take whole examples, because a question may have several correct answers, and several examples may be one
question. BLEU and ROUGE come from sacrebleu and rouge-score, which the extra `metrics` installs.
"""

import collections
import functools
import importlib
import importlib.util
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from spoton.errors import DataError
from spoton.tasks.example import Example

PredictedText = str | None
Predictions: TypeAlias = Sequence[PredictedText]
Examples: TypeAlias = Sequence[Example]
Labels: TypeAlias = Sequence[str] | None

# Words that do not identify the referent, in T5's rule for WSC.
_DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which whose your".split()
)

PACKAGES = {"bleu": "sacrebleu", "rouge1": "rouge_score", "rouge2": "rouge_score", "rougeLsum": "rouge_score"}
"""Metric -> the module it needs."""


def exact_match(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the share of questions whose prediction equals a correct answer after SQuAD's normalization.

    Rajpurkar et al. 2016. Of several examples of one question, the first counts (ReCoRD).
    """
    return _best(predictions, examples, lambda said, right: float(normalized(said) == normalized(right)))


def token_f1(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the mean over questions of the best bag-of-words F1, counted as in `exact_match`."""
    return _best(predictions, examples, _overlap)


def question_exact_match(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the share of questions all of whose examples are answered correctly (MultiRC)."""
    right: dict[object, bool] = {}
    for index, (prediction, example) in enumerate(zip(predictions, examples, strict=True)):
        key = example.question or index
        right[key] = right.get(key, True) and prediction == example.target
    return sum(right.values()) / len(right)


def referent_accuracy(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the share of Winograd schemas where the prediction is the candidate exactly if it is the referent.

    The target is the candidate; `references` holds `True` if it is the referent and `False` if not. A prediction
    matches the candidate if, without determiners, all words of one are among the words of the other, unless only one of
    them has an apostrophe. A missing prediction is always wrong.
    """
    told = 0
    for prediction, example in zip(predictions, examples, strict=True):
        if example.references not in (("True",), ("False",)):
            raise DataError(
                "A Winograd schema is scored by whether its target is the referent, which its references say: "
                f"found {list(example.references)}, expected True or False. Give `compute` the examples."
            )
        said = _without_determiners(prediction or "")
        told += bool(said) and _same_referent(said, example.target) == (example.references == ("True",))
    return told / len(examples)


def bleu(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns sacrebleu's corpus BLEU, with the `intl` tokenizer and `exp` smoothing, as in T5."""
    counts = [
        _bleu_counts(said or "", _answers(row)) for said, row in zip(predictions, examples, strict=True)
    ]
    correct, total, said, wanted = (_summed(part) for part in zip(*counts, strict=True))
    found = _package("bleu").BLEU.compute_bleu(correct, total, said[0], wanted[0], smooth_method="exp")
    # The mean of logarithms leaves a perfect score at 100.00000000000004, which a card refuses as a percentage.
    return min(1.0, float(found.score) / 100)


def rouge1(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the mean F1 of single words (Lin 2004), with stemming, as in rouge-score."""
    return _rouge("rouge1", predictions, examples)


def rouge2(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the mean F1 of pairs of words."""
    return _rouge("rouge2", predictions, examples)


def rouge_lsum(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the mean F1 of the longest common subsequence by sentence, with one sentence per line."""
    return _rouge("rougeLsum", predictions, examples)


@functools.lru_cache(maxsize=2**14)
def normalized(text: str) -> str:
    """Returns lower-case text without punctuation, articles and extra white space (SQuAD's official script)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def missing_package(metric: str) -> str | None:
    """Returns what to install before this metric can be computed, or None."""
    package = PACKAGES.get(metric)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"Scores need the package {package}, which is not there: pip install 'spoton[metrics]'."


def _answers(example: Example) -> tuple[str, ...]:
    return example.references or (example.target,)


def _best(predictions: Predictions, examples: Examples, score: Callable[[str, str], float]) -> float:
    found: dict[object, float] = {}
    for index, (prediction, example) in enumerate(zip(predictions, examples, strict=True)):
        key = example.question or index
        if key not in found:
            said = prediction
            found[key] = 0.0 if said is None else max(score(said, right) for right in _answers(example))
    return sum(found.values()) / len(found)


@functools.lru_cache(maxsize=2**14)
def _overlap(prediction: str, target: str) -> float:
    said, wanted = normalized(prediction).split(), normalized(target).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((collections.Counter(said) & collections.Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def _without_determiners(text: str) -> str:
    return " ".join(word for word in text.strip().lower().split(" ") if word not in _DETERMINERS)


def _same_referent(said: str, candidate: str) -> bool:
    candidate = _without_determiners(candidate)
    if ("'" in said) != ("'" in candidate):
        return False
    first, second = set(said.split(" ")), set(candidate.split(" "))
    return first <= second or second <= first


def _rouge(kind: str, predictions: Predictions, examples: Examples) -> float:
    scores = [
        max(_rouge_of(kind, right, prediction or "") for right in _answers(example))
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    return sum(scores) / len(scores)


# A bootstrap scores the same few pairs a thousand times.
@functools.lru_cache(maxsize=2**14)
def _rouge_of(kind: str, right: str, said: str) -> float:
    return float(_rouge_scorer(kind).score(right, said)[kind].fmeasure)


@functools.cache
def _rouge_scorer(kind: str) -> Any:
    return _package(kind).RougeScorer([kind], use_stemmer=True)


@functools.lru_cache(maxsize=2**14)
def _bleu_counts(said: str, right: tuple[str, ...]) -> tuple[Sequence[int], ...]:
    """Returns what corpus BLEU sums over examples: correct n-grams, n-grams, length, nearest reference length."""
    found = _bleu_scorer().sentence_score(said, right)
    return found.counts, found.totals, (found.sys_len,), (found.ref_len,)


@functools.cache
def _bleu_scorer() -> Any:
    return _package("bleu").BLEU(tokenize="intl", smooth_method="exp", effective_order=True)


def _summed(parts: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*parts, strict=True)]


def _package(metric: str) -> Any:
    missing = missing_package(metric)
    if missing is not None:
        raise DataError(missing)
    module = PACKAGES[metric]
    return importlib.import_module(
        f"{module}.rouge_scorer" if module == "rouge_score" else f"{module}.metrics.bleu"
    )
