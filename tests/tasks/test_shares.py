"""The division of groups: the old one where no text is repeated, and rows for train where one is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.tasks.shares import divided_groups, share_of

some_shares = st.sampled_from([(0.1, 0.1), (0.1, 0.0), (0.0, 0.1), (0.05, 0.02), (0.0, 0.0), (0.1, 0.8)])


def divided(sizes: list[int], shares: tuple[float, float] = (0.1, 0.1)) -> list[list[int]]:
    """Sizes of the groups of train, validation and test."""
    split = divided_groups(np.array(sizes, dtype=np.int64), shares)
    return [[size for size, number in zip(sizes, split, strict=True) if number == n] for n in range(3)]


@given(st.integers(3, 400), some_shares)
def test_single_rows_are_divided_as_in_every_earlier_release(count: int, shares: tuple[float, float]) -> None:
    test = max(math.floor(shares[1] * count), int(shares[1] > 0))
    validation = max(math.floor(shares[0] * count), int(shares[0] > 0))
    validation = min(validation, count - test)
    expected = [2] * test + [1] * validation + [0] * (count - test - validation)
    assert divided_groups(np.ones(count, dtype=np.int64), shares).tolist() == expected


def test_small_groups_are_divided_as_in_every_earlier_release() -> None:
    assert divided([2, 1, 1, 3] + [1] * 23) == [[3] + [1] * 21, [1, 1, 1], [2, 1]]


@pytest.mark.parametrize("place", range(3))
def test_the_largest_of_three_groups_stays_in_train(place: int) -> None:
    sizes = [1, 1, 1]
    sizes[place] = 100
    assert divided(sizes) == [[100], [1], [1]]


@given(st.lists(st.sampled_from([1, 2, 100, 1000]), min_size=3, max_size=60), some_shares)
def test_no_split_is_without_rows_and_train_has_at_least_the_largest_group_or_its_share(
    sizes: list[int], shares: tuple[float, float]
) -> None:
    if sum(shares) > 0.5:
        return
    train, validation, test = divided(sizes, shares)
    assert sorted(train + validation + test) == sorted(sizes)
    assert train
    assert sum(train) >= 0.4 * sum(sizes) or max(sizes) in train
    assert bool(validation) == (shares[0] > 0)
    assert bool(test) == (shares[1] > 0)


def test_other_groups_keep_their_proportion_where_one_text_is_most_of_the_rows() -> None:
    train, validation, test = divided([1] * 50 + [10_000] + [1] * 50)
    assert (len(train), len(validation), len(test)) == (81, 10, 10)
    assert 10_000 in train


def test_a_share_is_at_most_a_number_of_rows() -> None:
    assert (share_of(0.1, 500, 100), share_of(0.1, 500, 10_000), share_of(0.1, 500, 0)) == (0.1, 0.05, 0.0)
