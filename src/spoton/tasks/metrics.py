"""Metrics of predictions against targets, all in 0..100 (correlations and Matthews in -100..100).

Deals in strings only: how a model arrived at them is not known here. A prediction that is no answer at all
(None), no label, or no number counts as wrong; it is never left out.
"""

import collections
import math
import re
import string
import warnings
from collections.abc import Callable, Sequence

from spoton.errors import DataError

Prediction = str | None
Metric = Callable[[Sequence[Prediction], Sequence[str], Sequence[str] | None], float]

_INVALID = "\0invalid"  # a class of its own that no target has


def compute(
    names: Sequence[str],
    predictions: Sequence[Prediction],
    targets: Sequence[str],
    labels: Sequence[str] | None = None,
) -> dict[str, float]:
    """Score predictions under each named metric.

    Args:
        names: Keys of `METRICS`.
        predictions: One a target; None where there is no valid answer.
        targets: The right answers.
        labels: The closed set of targets, if there is one; macro F1 averages over all of it.

    Raises:
        DataError: An unknown metric, nothing to score, or a correlation with targets that are no numbers.
    """
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    if not targets:
        raise DataError("There are no examples to score. Give the split at least one.")
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise DataError(f"Unknown metric {', '.join(map(repr, unknown))}; choose from {', '.join(METRICS)}.")
    return {name: 100.0 * METRICS[name](predictions, targets, labels) for name in names}


def accuracy(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Share of predictions equal to their targets."""
    return sum(map(str.__eq__, _strings(predictions), targets)) / len(targets)


def macro_f1(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Mean over the labels of the harmonic mean of precision and recall (0 for a label without either)."""
    from sklearn.metrics import f1_score

    over = list(labels) if labels is not None else sorted(set(targets))
    return float(
        f1_score(list(targets), _strings(predictions), labels=over, average="macro", zero_division=0)
    )


def matthews(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Matthews correlation for any number of classes; 0 where it is not defined (one class only)."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sklearn wonders about a single class
        return float(matthews_corrcoef(list(targets), _strings(predictions)))


def pearson(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Linear correlation of predicted and target numbers; 0 where either is constant.

    Taken over the predictions that are numbers and multiplied by their share, so that each one that is none
    draws the score towards 0.
    """
    from scipy import stats

    return _correlation(stats.pearsonr, predictions, targets)


def spearman(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Rank correlation of predicted and target numbers; invalid predictions as in `pearson`."""
    from scipy import stats

    return _correlation(stats.spearmanr, predictions, targets)


def exact_match(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Share of predictions equal to their targets after SQuAD normalization (Rajpurkar et al. 2016)."""
    pairs = zip(predictions, targets, strict=True)
    return sum(p is not None and _normalized(p) == _normalized(t) for p, t in pairs) / len(targets)


def token_f1(
    predictions: Sequence[Prediction], targets: Sequence[str], labels: Sequence[str] | None = None
) -> float:
    """Mean F1 of the bags of words after SQuAD normalization (Rajpurkar et al. 2016)."""
    pairs = zip(predictions, targets, strict=True)
    return sum(0.0 if p is None else _overlap(p, t) for p, t in pairs) / len(targets)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "exact_match": exact_match,
    "token_f1": token_f1,
}

CORRELATIONS = frozenset({"pearson", "spearman"})
"""The metrics whose targets have to be numbers."""


def _strings(predictions: Sequence[Prediction]) -> list[str]:
    return [_INVALID if prediction is None else prediction for prediction in predictions]


def number(text: Prediction) -> float | None:
    """The finite number that a text spells, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _correlation(
    measure: Callable[..., object], predictions: Sequence[Prediction], targets: Sequence[str]
) -> float:
    wanted = [number(target) for target in targets]
    if None in wanted:
        strange = targets[wanted.index(None)]
        raise DataError(f"Correlation needs numbers as targets, found {strange!r}. Choose another metric.")
    valid = [pair for pair in zip(map(number, predictions), wanted, strict=True) if pair[0] is not None]
    said, true = [pair[0] for pair in valid], [pair[1] for pair in valid]
    if len(set(said)) < 2 or len(set(true)) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy wonders about nearly constant input
        value = float(measure(said, true).statistic)  # type: ignore[attr-defined]  # both scipy results have it
    return value * len(valid) / len(targets) if math.isfinite(value) else 0.0


def _normalized(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space (SQuAD's official script)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _overlap(prediction: str, target: str) -> float:
    said, wanted = _normalized(prediction).split(), _normalized(target).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((collections.Counter(said) & collections.Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
