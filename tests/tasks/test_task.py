"""The task as a value: what it refuses, its hash, and its smaller versions."""

from collections import Counter
from dataclasses import replace

import pytest

from spoton.errors import DataError
from spoton.tasks import Example, Task


def make(**changes: object) -> Task:
    rows = tuple(Example(f"text {i}", ("no", "yes")[i % 3 == 0]) for i in range(30))
    task = Task(
        name="t",
        family="f",
        train=rows,
        validation=rows[:4],
        test=rows[4:10],
        labels=("no", "yes"),
        metrics=("accuracy", "macro_f1"),
        template="{{ text }}",
        source="file:t.csv",
    )
    return replace(task, **changes)  # type: ignore[arg-type]  # the tests give what must be refused, too


def test_the_plain_facts() -> None:
    task = make()
    assert task.metric == "accuracy"
    assert task.splits() == {"train": 30, "validation": 4, "test": 6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ()}, "no train examples"),
        ({"metrics": ()}, "choose from accuracy"),
        ({"metrics": ("acuracy",)}, "acuracy.*choose from accuracy"),
        ({"metrics": ("accuracy", "pearson")}, r"pearson .*'no' \(26 times\), 'yes' \(14 times\)"),
        ({"metrics": ("spearman",), "labels": None}, "spearman .*numbers"),
        ({"labels": ("no",)}, "at least two"),
        ({"labels": ("no", "no", "yes")}, "all different"),
        ({"labels": ("no", "maybe")}, r"'yes' \(14 times\)"),
    ],
)
def test_what_could_never_be_tuned_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_numbers_may_be_labels_and_still_be_correlated() -> None:
    rows = tuple(Example(f"text {i}", str(i % 3)) for i in range(9))
    stars = {"labels": ("0", "1", "2"), "metrics": ("pearson",), "train": rows}
    assert make(**stars, validation=rows, test=()).metric == "pearson"


def test_the_hash_sees_every_row_its_place_and_its_split() -> None:
    task = make()
    assert task.data_hash() == make().data_hash()
    assert task.data_hash() == make(name="other", template="x").data_hash()  # the data only
    first, second = task.validation[:2]
    others = [
        make(validation=(second, first, *task.validation[2:])),
        make(validation=(*task.validation, task.test[0]), test=task.test[1:]),
        make(test=(replace(task.test[0], target="yes"), *task.test[1:])),
        make(test=(replace(task.test[0], input="text 4 "), *task.test[1:])),
    ]
    assert len({each.data_hash() for each in [task, *others]}) == 5
    assert len(task.data_hash()) == 16


def test_limited_keeps_proportions_and_the_other_splits() -> None:
    task = make()
    limited = task.limited(train=12, test=100, seed=3)
    assert Counter(example.target for example in limited.train) == {"no": 8, "yes": 4}
    assert (limited.validation, limited.test) == (task.validation, task.test)
    with pytest.raises(DataError, match="-1"):
        task.limited(validation=-1)


def test_k_shot_changes_train_only() -> None:
    task = make()
    shot = task.k_shot(2, seed=1)
    assert Counter(example.target for example in shot.train) == {"no": 2, "yes": 2}
    assert (shot.validation, shot.test) == (task.validation, task.test)
    assert shot.train != task.k_shot(2, seed=2).train
