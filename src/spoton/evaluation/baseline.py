"""The method a user would try first: TF-IDF and logistic regression, on the same splits as a prompt.

Words (one and two in a row) and characters (two to five in a row, within words), weighted by TF-IDF; multinomial
logistic regression, its C chosen by cross-validation on the training rows alone. It needs no model and takes a second
or two for a few hundred rows. scikit-learn does all of it.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoton.errors import DataError
from spoton.tasks.metrics import compute
from spoton.tasks.splits import stratified_sample
from spoton.tasks.stored.rows import StoredRows
from spoton.tasks.task import Example, Task

STRENGTHS = (1.0, 10.0, 100.0)
"""The choices of C; `docs/experiments.md`, "What a user would try first"."""
FALLBACK = 10.0
"""C if there are too few rows to choose it."""
FOLDS = 3
_LEAST_ROWS = 10  # needed to choose C
_CHOSEN_ON = 2_000  # rows are enough to choose C; more only take longer
_MOST_ROWS = 20_000


@dataclass(frozen=True)
class Classical:
    """The results of TF-IDF and logistic regression on a task.

    Attributes:
        metric: Name of the main metric.
        scores: By split (`validation`, `test`), every metric of the task.
        predictions: By split, the predicted label of each example.
        probabilities: By split, `[N, L]` in the order of `labels`; 0 for a label that no training row has.
        labels: The labels of the task.
        c: The chosen inverse strength of the regularization.
        folds: Number of cross-validation folds; 0 if there were too few rows of a label and
            `FALLBACK` was used.
        rows: Number of training rows.
        seconds: Wall time.
    """

    metric: str
    scores: dict[str, dict[str, float]]
    predictions: dict[str, list[str]] = field(repr=False)
    probabilities: dict[str, NDArray[np.float64]] = field(repr=False)
    labels: tuple[str, ...]
    c: float
    folds: int
    rows: int
    seconds: float

    def score(self, split: str) -> float | None:
        """Returns the main metric on a split; None if the split is empty."""
        return self.scores[split][self.metric] if split in self.scores else None

    def to_json(self) -> dict[str, Any]:
        """Returns the scores and how they were obtained, as plain values."""
        return {
            "scores": self.scores, "c": self.c, "folds": self.folds, "rows": self.rows, "seconds": self.seconds,
        }  # fmt: skip


def classical(task: Task, *, splits: Sequence[str] = ("validation", "test"), seed: int = 0) -> Classical:
    """Fits TF-IDF and logistic regression on a task's training rows and scores them on its other splits.

    Duplicate training rows (`Task.balanced`) count as one row with that weight, so that no copy of a row is on both
    sides of a fold. If more than 20,000 rows are different, a sample is used.

    Args:
        task: A task with a closed set of labels.
        splits: The splits to score.
        seed: Seed of the folds and samples.

    Raises:
        DataError: The targets are open, or all training rows have one label.

    Examples:
        >>> classical(task).score("test")  # doctest: +SKIP
        83.5
    """
    began = time.monotonic()
    if task.labels is None:
        raise DataError(
            f"{task.name} has open targets; TF-IDF and logistic regression need a closed set of labels."
        )
    counts = _counted(task, seed)
    if len({example.target for example in counts}) < 2:
        raise DataError(f"All training rows of {task.name} have one label; there is nothing to fit.")
    rows = stratified_sample(list(counts), _MOST_ROWS, task.labels, seed)
    c, folds = _chosen(rows, counts, task, seed)
    fitted = _fit(rows, counts, c)
    scores, predictions, probabilities = {}, {}, {}
    for split in splits:
        examples: Sequence[Example] = getattr(task, split)
        if not examples:
            continue
        chances = _probabilities(fitted, examples, task.labels)
        said = [task.labels[best] for best in chances.argmax(axis=1)]
        targets = [example.target for example in examples]
        scores[split] = compute(task.metrics, said, targets, task.labels, examples=examples)
        predictions[split], probabilities[split] = said, chances
    return Classical(
        task.metric, scores, predictions, probabilities, task.labels, c, folds, len(rows), time.monotonic() - began
    )  # fmt: skip


def _counted(task: Task, seed: int) -> Mapping[Example, int]:
    """Returns the different training rows with their counts; from a store, only those to fit on."""
    if isinstance(task.train, StoredRows):
        return task.train.different(_MOST_ROWS, task.labels, seed)
    return Counter(task.train)


def _chosen(
    rows: Sequence[Example], weights: Mapping[Example, int], task: Task, seed: int
) -> tuple[float, int]:
    """Returns the C with the best main metric over all held-out folds (ties: the smaller C), and the number of folds.

    Folds are stratified. A label with fewer rows than folds is missing from some of them, which scikit-learn allows
    as long as one label has enough.
    """
    from sklearn.model_selection import StratifiedKFold

    sample = stratified_sample(rows, _CHOSEN_ON, task.labels, seed)
    targets = [example.target for example in sample]
    folds = min(FOLDS, max(Counter(targets).values()))
    if len(sample) < _LEAST_ROWS or folds < 2:
        return FALLBACK, 0
    said: dict[float, list[str | None]] = {c: [None] * len(sample) for c in STRENGTHS}
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # the least frequent label has fewer rows than there are folds
        parts = list(splitter.split(targets, targets))
    for taught, held in parts:
        some = [sample[i] for i in taught]
        if len({example.target for example in some}) < 2:
            return FALLBACK, 0
        features = _features()
        matrix = features.fit_transform([example.input for example in some])
        held_out = features.transform([sample[i].input for i in held])
        for c in STRENGTHS:
            answers = _regression(matrix, some, weights, c).predict(held_out)
            for place, answer in zip(held, answers, strict=True):
                said[c][place] = str(answer)
    found = {
        c: compute(task.metrics, answers, targets, task.labels, examples=sample)[task.metric]
        for c, answers in said.items()
    }
    return max(STRENGTHS, key=lambda c: (found[c], -c)), folds


def _features() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    # A word is anything between spaces: the usual pattern drops single letters and signs, and some languages.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]")
    return FeatureUnion(
        [("words", words), ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)))]
    )


def _regression(matrix: Any, rows: Sequence[Example], weights: Mapping[Example, int], c: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a thousand steps are close enough for a comparison
        return LogisticRegression(C=c, max_iter=1000).fit(
            matrix, [row.target for row in rows], sample_weight=[weights[row] for row in rows]
        )


def _fit(rows: Sequence[Example], weights: Mapping[Example, int], c: float) -> Any:
    from sklearn.pipeline import Pipeline

    features = _features()
    matrix = features.fit_transform([row.input for row in rows])
    return Pipeline([("features", features), ("regression", _regression(matrix, rows, weights, c))])


def _probabilities(fitted: Any, examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.float64]:
    """Returns `[N, L]` probabilities in the order of the task's labels."""
    found = fitted.predict_proba([example.input for example in examples])
    chances = np.zeros((len(examples), len(labels)))
    for column, label in enumerate(fitted.classes_):
        chances[:, labels.index(label)] = found[:, column]
    return chances
