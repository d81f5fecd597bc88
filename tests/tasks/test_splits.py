"""Splits and samples: what must hold for any data, and that the order never changes between releases."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.errors import DataError
from spoton.files import sha256_of_text
from spoton.tasks.example import Example
from spoton.tasks.splits import (
    interleaved,
    k_per_label,
    require_enough,
    stratified_sample,
    stratified_split,
)

LABELS = ("a", "b", "c")

examples_of_each_label = st.lists(st.integers(3, 40), min_size=3, max_size=3).map(
    lambda counts: [
        Example(f"{label}{i}", label)
        for label, count in zip(LABELS, counts, strict=True)
        for i in range(count)
    ]
)


@given(examples_of_each_label, st.integers(0, 3), st.data())
def test_a_split_is_a_partition_with_every_label_everywhere(
    examples: list[Example], seed: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(examples))
    splits = stratified_split(order, labels=LABELS, seed=seed)

    assert Counter(example for split in splits for example in split) == Counter(examples)
    for split in splits:
        assert {example.target for example in split} == set(LABELS)
    for label in LABELS:
        count = sum(example.target == label for example in examples)
        held = sum(example.target == label for example in splits[2])
        assert held == max(1, int(count * 0.1))


@given(examples_of_each_label, st.data())
def test_a_split_does_not_depend_on_the_order_of_rows(examples: list[Example], data: st.DataObject) -> None:
    order = data.draw(st.permutations(examples))
    assert stratified_split(order, labels=LABELS) == stratified_split(examples, labels=LABELS)


@given(st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(LABELS)), min_size=30, max_size=90))
def test_one_input_never_falls_in_two_splits(rows: list[tuple[str, str]]) -> None:
    examples = [Example(text, label) for text, label in rows]
    try:
        splits = stratified_split(examples, labels=LABELS)
    except DataError:
        return  # a label with too few different inputs
    inputs = [{example.input for example in split} for split in splits]
    assert not (inputs[0] & inputs[1] or inputs[0] & inputs[2] or inputs[1] & inputs[2])


def test_groups_stay_together() -> None:
    examples = [Example(f"question {i}", "ab"[i % 2]) for i in range(200)]
    groups = [f"passage {i // 5}" for i in range(200)]
    of = dict(zip(examples, groups, strict=True))
    splits = stratified_split(examples, labels=("a", "b"), groups=groups)
    seen = [{of[example] for example in split} for split in splits]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert [len(split) for split in splits] == [160, 20, 20]


def test_held_out_splits_are_capped() -> None:
    examples = [Example(str(i), "ab"[i % 2]) for i in range(3000)]
    splits = stratified_split(examples, labels=("a", "b"), at_most=(50, 100))
    assert [len(split) for split in splits] == [2850, 50, 100]


def test_a_share_of_nothing_leaves_a_split_empty() -> None:
    examples = [Example(str(i), "ab"[i % 2]) for i in range(40)]
    train, validation, test = stratified_split(examples, labels=("a", "b"), fractions=(0.9, 0.1, 0.0))
    assert (len(train), len(validation), len(test)) == (36, 4, 0)


def test_too_small_a_class_is_named() -> None:
    examples = [Example(str(i), "common") for i in range(30)] + [Example("x", "rare"), Example("y", "rare")]
    with pytest.raises(
        DataError, match=r"'rare' has 2; at least 3.*merge rare labels.*--validation.*evaluate --split all"
    ):
        stratified_split(examples, labels=("common", "rare"))


def test_copies_of_one_input_do_not_make_a_class_large_enough() -> None:
    examples = [Example(str(i), "common") for i in range(30)] + [Example("x", "rare")] * 10
    with pytest.raises(DataError, match="'rare' has 1"):
        stratified_split(examples, labels=("common", "rare"))


def test_open_targets_need_three_inputs() -> None:
    with pytest.raises(DataError, match="2; at least 3"):
        stratified_split([Example("x", "1"), Example("y", "2")], labels=None)


@given(examples_of_each_label, st.integers(0, 60), st.integers(0, 60), st.integers(0, 3))
def test_samples_are_nested_and_in_proportion(examples: list[Example], m: int, n: int, seed: int) -> None:
    small, large = sorted((m, n))
    sample = stratified_sample(examples, small, LABELS, seed)
    assert set(sample) <= set(stratified_sample(examples, large, LABELS, seed))
    assert len(sample) == min(small, len(examples))
    for label in LABELS:
        share = sum(example.target == label for example in examples) / len(examples)
        assert abs(sum(example.target == label for example in sample) - share * len(sample)) < 2


@given(examples_of_each_label, st.integers(1, 3), st.integers(0, 3))
def test_k_shot_takes_k_of_each_label_and_is_nested(examples: list[Example], k: int, seed: int) -> None:
    chosen = k_per_label(examples, k, LABELS, seed)
    assert Counter(example.target for example in chosen) == dict.fromkeys(LABELS, k)
    assert set(k_per_label(examples, 1, LABELS, seed)) <= set(chosen) <= set(examples)


def test_k_shot_says_how_many_there_are() -> None:
    examples = [Example(str(i), "a") for i in range(5)] + [Example("x", "b")]
    with pytest.raises(DataError, match=r"found 1 train examples with label 'b'.*at most 1"):
        k_per_label(examples, 2, ("a", "b"), 0)
    with pytest.raises(DataError, match="at least 1"):
        k_per_label(examples, 0, ("a", "b"), 0)


def test_k_shot_of_open_targets_is_k_in_all() -> None:
    examples = [Example(str(i), str(i)) for i in range(9)]
    assert len(k_per_label(examples, 4, None, 0)) == 4


def test_seeds_differ_and_the_order_is_pinned() -> None:
    examples = [Example(str(i), "ab"[i % 2]) for i in range(10)]
    orders = [[example.input for example in interleaved(examples, ("a", "b"), seed)] for seed in (0, 1)]
    # Pinned: another order would change every data hash and every published score.
    assert orders[0] == ["0", "1", "4", "5", "8", "9", "2", "3", "6", "7"]
    assert orders[1] != orders[0]


@pytest.mark.parametrize("seed", range(10))
def test_a_text_repeated_a_hundred_times_leaves_rows_of_its_label_in_train(seed: int) -> None:
    examples = [Example("spam", "a")] * 100 + [Example(f"a{i}", "a") for i in range(4)]
    examples += [Example(f"b{i}", "b") for i in range(50)]
    splits = stratified_split(examples, labels=("a", "b"), seed=seed)
    counts = [Counter(example.target for example in split) for split in splits]
    assert counts[0]["a"] >= 100
    assert all(count["a"] and count["b"] for count in counts)
    assert sum(map(len, splits)) == len(examples)


def test_splits_without_repeated_texts_are_pinned() -> None:
    examples = [Example(f"text {i}", "abc"[i % 7 % 3]) for i in range(500)]
    splits = stratified_split(examples, labels=LABELS)
    # Pinned: another division would change the data hash on every card and in every finished study.
    assert (
        sha256_of_text(f"{n} {each.input}" for n, split in enumerate(splits) for each in split)[:16]
        == "10c5b2c6e51f0a0c"
    )


def test_of_many_small_labels_the_error_names_a_few() -> None:
    with pytest.raises(DataError, match=r"'a0' has 1, .*, and 20 more labels; at least 3") as told:
        require_enough({f"a{n}": 1 for n in range(30)}, 3, [f"a{n}" for n in range(30)])
    assert len(str(told.value)) < 400
