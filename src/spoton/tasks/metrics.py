"""Metrics of predictions against targets, all in 0..100 (correlations and Matthews in -100..100).

Deals in strings only, whatever model produced them. A prediction that is not an answer (None), not a label, or not a
number counts as wrong; it is never left out. Metrics of label words and numbers are here, those of free text in
`text_metrics`.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spoton.errors import DataError
from spoton.tasks import text_metrics
from spoton.tasks.example import Example
from spoton.tasks.text_metrics import Examples, Labels, PredictedText, Predictions

MetricFunction = Callable[[Predictions, Examples, Labels], float]

MEAN = "mean"
"""Not a metric but the mean of those named with it, by which the paper judges tasks with several metrics."""


def compute(
    names: Sequence[str],
    predictions: Predictions,
    targets: Sequence[str],
    labels: Labels = None,
    *,
    examples: Examples | None = None,
) -> dict[str, float]:
    """Scores predictions under each named metric.

    Args:
        names: Keys of `METRICS`, and `mean` for the mean of the others.
        predictions: One per target; None where there is no valid answer.
        targets: The correct answers.
        labels: The closed set of targets, if there is one; macro F1 averages over all of it.
        examples: The examples of the targets. Without them, each target is the only correct answer to a separate
            question, which is wrong for tasks whose examples have `references` or a `question`.

    Raises:
        DataError: A metric is unknown or its package is not installed, there is nothing to score, a correlation has
            targets that are not numbers, or F1 has other than two labels.
    """
    if examples is None:
        examples = [Example("", target) for target in targets]
    if not len(predictions) == len(targets) == len(examples):
        raise ValueError(
            f"{len(predictions)} predictions for {len(targets)} targets of {len(examples)} examples"
        )
    if not targets:
        raise DataError("There are no examples to score. Give the split at least one.")
    require_known(names)
    found = {name: 100.0 * METRICS[name](predictions, examples, labels) for name in names if name != MEAN}
    return {name: found[name] if name != MEAN else mean_score(found) for name in names}


def require_known(names: Sequence[str]) -> None:
    """Refuses unknown metrics, and `mean` without other metrics.

    Raises:
        DataError: Names the known metrics.
    """
    unknown = [name for name in names if name not in METRICS and name != MEAN]
    if unknown or not set(names) - {MEAN}:
        found = ", ".join(map(repr, unknown or names)) or "none"
        raise DataError(f"Unknown metric {found}; choose from {', '.join(METRICS)}, and {MEAN} of several.")


def mean_score(scores: Mapping[str, float]) -> float:
    """Returns the unweighted mean: a task's score from its metrics, or a benchmark's from its tasks' scores."""
    return sum(scores.values()) / len(scores)


def resampled_scores(
    names: Sequence[str],
    predictions: Predictions,
    examples: Examples,
    labels: Labels,
    samples: int,
    generator: Any,
) -> dict[str, Any] | None:
    """Returns label metrics of resampled rows in percent, `[S]` each, from counts of answers.

    Args:
        names: As for `compute`.
        predictions: One per example.
        examples: The examples; independent rows.
        labels: The closed set of targets, if there is one.
        samples: Number of resamplings S.
        generator: A NumPy random generator.

    Returns:
        The metrics by name; None where counts of answers do not suffice for a metric.
    """
    from spoton.tasks.resampled import resampled_counts, scores_of_counts

    # F1 counts an invalid answer as the wrong label, which counts of answers do not show.
    counted = LABEL_METRICS if None not in predictions else LABEL_METRICS - {"f1"}
    if not counted.issuperset(names) or ("f1" in names and labels is None):
        return None
    targets = _targets(examples)
    over = labels if labels is not None else list(dict.fromkeys(targets))
    true, said = _codes(predictions, targets, over)
    classes = max(len(over), *true, *said) + 2  # the last class stands for no answer
    said = [classes - 1 if answer < 0 else answer for answer in said]
    counts = resampled_counts(true, said, classes, samples, generator)
    return {name: 100.0 * scores_of_counts(name, counts, len(over)) for name in names}


def accuracy(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the share of predictions equal to their targets."""
    return _by_sklearn("accuracy", predictions, examples, labels)


def f1(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the harmonic mean of precision and recall of the second of two labels.

    A prediction that is neither label counts as the wrong one, as in T5's `f1_score_with_invalid`. Over all
    answers of MultiRC this is F1a.
    """
    return _by_sklearn("f1", predictions, examples, labels)


def macro_f1(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the mean over labels of the harmonic mean of precision and recall (0 for a label without either)."""
    return _by_sklearn("macro_f1", predictions, examples, labels)


def matthews(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the Matthews correlation for any number of classes (Gorodkin 2004); 0 where either side has one class."""
    return _by_sklearn("matthews", predictions, examples, labels)


def _by_sklearn(name: str, predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns a label metric."""
    from sklearn import metrics

    targets = _targets(examples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Matthews with one class on both sides, which is 0 here
        if name == "f1":
            true, said = _binary(predictions, targets, labels)
            return float(metrics.f1_score(true, said, zero_division=0.0))
        over = labels if labels is not None else list(dict.fromkeys(targets))
        true, said = _codes(predictions, targets, over)
        if name == "accuracy":
            return float(metrics.accuracy_score(true, said))
        if name == "matthews":
            return float(metrics.matthews_corrcoef(true, said))
        return float(
            metrics.f1_score(true, said, labels=range(len(over)), average="macro", zero_division=0.0)
        )


def _binary(predictions: Predictions, targets: Sequence[str], labels: Labels) -> tuple[list[int], list[int]]:
    """Returns targets and predictions as 1 for the second of two labels; an invalid answer counts as the wrong one."""
    if labels is None or len(labels) != 2:
        raise DataError(f"F1 needs two labels, found {labels}. Choose macro_f1 or token_f1.")
    positive = labels[1]
    true = [int(target == positive) for target in targets]
    said = [
        int(prediction == positive) if prediction in labels else 1 - right
        for prediction, right in zip(predictions, true, strict=True)
    ]
    return true, said


def pearson(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the linear correlation of predicted and target numbers; 0 where either is constant.

    Computed over the predictions that are numbers and multiplied by their share, so that each invalid one moves the
    score towards 0.
    """
    from scipy import stats

    return _correlation(stats.pearsonr, predictions, _targets(examples))


def spearman(predictions: Predictions, examples: Examples, labels: Labels) -> float:
    """Returns the rank correlation of predicted and target numbers; invalid predictions count as in `pearson`."""
    from scipy import stats

    return _correlation(stats.spearmanr, predictions, _targets(examples))


METRICS: dict[str, MetricFunction] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "exact_match": text_metrics.exact_match,
    "token_f1": text_metrics.token_f1,
    "question_exact_match": text_metrics.question_exact_match,
    "referent_accuracy": text_metrics.referent_accuracy,
    "bleu": text_metrics.bleu,
    "rouge1": text_metrics.rouge1,
    "rouge2": text_metrics.rouge2,
    "rougeLsum": text_metrics.rouge_lsum,
}

LABEL_METRICS = frozenset({"accuracy", "f1", "macro_f1", "matthews"})
"""Metrics that only compare label words."""

CORRELATIONS = frozenset({"pearson", "spearman"})
"""Metrics whose targets must be numbers."""


def _targets(examples: Examples) -> list[str]:
    return [example.target for example in examples]


def _codes(
    predictions: Predictions, targets: Sequence[str], first: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Returns targets and predictions as integers, which scikit-learn compares faster than text; no answer is -1.

    Args:
        predictions: One per target.
        targets: The correct answers.
        first: Texts numbered from 0 on; all others follow.
    """
    codes = {text: code for code, text in enumerate(first)}
    said = [
        -1 if prediction is None else codes.setdefault(prediction, len(codes)) for prediction in predictions
    ]
    return [codes.setdefault(target, len(codes)) for target in targets], said


def number(text: PredictedText) -> float | None:
    """Returns the finite number that a text spells, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _correlation(measure: Callable[..., object], predictions: Predictions, targets: Sequence[str]) -> float:
    wanted = [number(target) for target in targets]
    if None in wanted:
        strange = targets[wanted.index(None)]
        raise DataError(f"Correlation needs numbers as targets, found {strange!r}. Choose another metric.")
    valid = [pair for pair in zip(map(number, predictions), wanted, strict=True) if pair[0] is not None]
    said, true = [pair[0] for pair in valid], [pair[1] for pair in valid]
    if len(set(said)) < 2 or len(set(true)) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns about nearly constant input
        value = float(measure(said, true).statistic)  # type: ignore[attr-defined]  # both scipy results have it
    return value * len(valid) / len(targets) if math.isfinite(value) else 0.0
