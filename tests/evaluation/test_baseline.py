"""TF-IDF and logistic regression: on the right rows, in the task's own order, with few rows as well."""

from dataclasses import replace

import numpy as np
import pytest

from spoton.errors import DataError
from spoton.evaluation.baseline import FALLBACK, STRENGTHS, classical
from spoton.tasks import Example
from tests.tiny import toy_task


def test_it_learns_words_and_names_how() -> None:
    found = classical(toy_task())
    assert found.c in STRENGTHS and found.folds == 3 and found.rows == 24
    assert found.score("test") == 100.0 and found.seconds > 0
    assert found.to_json()["scores"]["validation"].keys() == {"accuracy"}
    assert "c=" in repr(found) and "array" not in repr(
        found
    )  # a notebook shows what was found, not every row


def test_probabilities_are_in_the_order_of_the_labels() -> None:
    task = toy_task(("yes", "no"))
    found = classical(task)
    chances = found.probabilities["test"]
    assert chances.shape == (8, 2) and np.allclose(chances.sum(axis=1), 1)
    assert [task.labels[best] for best in chances.argmax(axis=1)] == found.predictions["test"]  # type: ignore[index]


def test_held_out_rows_are_never_seen() -> None:
    task = toy_task()
    swapped = replace(task, test=tuple(Example(row.input, "no") for row in task.test))
    assert classical(task).predictions == classical(swapped).predictions


def test_a_label_without_training_rows_has_no_chance() -> None:
    task = replace(toy_task(), labels=("yes", "maybe", "no"))
    assert not classical(task).probabilities["test"][:, 1].any()


def test_few_rows_and_a_label_of_one_row() -> None:
    task = toy_task()
    few = classical(replace(task, train=task.train[:4]))
    assert (few.c, few.folds) == (FALLBACK, 0) and few.predictions["test"]
    lone = replace(task, labels=("yes", "no", "lone"), train=(*task.train, Example("odd", "lone")))
    assert classical(lone).folds == 3


def test_repeated_rows_are_weights() -> None:
    task = toy_task()
    doubled = classical(replace(task, train=task.train * 3))
    assert doubled.rows == 24 and doubled.score("test") == 100.0


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(DataError, match="closed set"):
        classical(toy_task(None))
    task = toy_task()
    with pytest.raises(DataError, match="one label"):
        classical(replace(task, train=tuple(row for row in task.train if row.target == "yes")))
