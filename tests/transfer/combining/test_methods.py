"""Starting points from retrieved prompts, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from spoton.errors import LibraryError, RecipeError
from spoton.prompts import Card, SoftPrompt
from spoton.transfer import METHODS, Retrieved
from spoton.transfer.combining.methods import starts
from spoton.transfer.combining.start import Start


def retrieved(name: str, similarity: float, value: list[list[float]]) -> Retrieved:
    card = Card(name=name, task=name, model="tiny", model_fingerprint="f00d")
    return Retrieved(name, similarity, SoftPrompt(torch.tensor(value), card))


A = retrieved("a", 0.6, [[1.0, 10.0], [2.0, 20.0]])
B = retrieved("b", 0.2, [[5.0, 50.0], [6.0, 60.0]])
LONG = retrieved("long", 0.5, [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
SHORT = retrieved("short", 0.5, [[7.0, 0.0]])


def weights(start: Start) -> dict[str, float]:
    return {parent.name: parent.weight for parent in start.parents}


def test_the_best_of_top_k_are_the_sources_themselves_in_order() -> None:
    first, second = starts([A, B], "best-of-top-k", 2)
    assert (first.name, second.name) == ("a", "b")
    assert torch.equal(first.value, A.prompt.value) and torch.equal(second.value, B.prompt.value)


def test_a_start_names_its_source_on_the_card() -> None:
    (start,) = starts([A], "best-of-top-k", 2)
    (parent,) = start.parents
    assert (parent.name, parent.weight, parent.similarity) == ("a", 1.0, 0.6)
    assert parent.hash == A.prompt.content_hash()


def test_sources_of_other_lengths_are_cut_or_repeated() -> None:
    long, short = starts([LONG, SHORT], "best-of-top-k", 2)
    assert long.value.tolist() == [[1, 0], [2, 0]]
    assert short.value.tolist() == [[7, 0], [7, 0]]


def test_a_weighted_average_is_weighted_by_similarity() -> None:
    (start,) = starts([A, B], "weighted-average", 2)  # 3/4 of a, 1/4 of b
    torch.testing.assert_close(start.value, torch.tensor([[2.0, 20.0], [3.0, 30.0]]))
    assert weights(start) == pytest.approx({"a": 0.75, "b": 0.25})
    assert start.name == "a + b"


def test_an_average_of_different_lengths_is_taken_at_the_wanted_one() -> None:
    (start,) = starts([LONG, SHORT], "weighted-average", 4)
    assert start.value[:, 0].tolist() == [4, 4.5, 5, 4]  # of 1 2 3 1 and 7 7 7 7


def test_the_average_of_one_source_is_that_source() -> None:
    (start,) = starts([A], "weighted-average", 2)
    assert torch.equal(start.value, A.prompt.value)
    assert weights(start) == {"a": 1.0}


def test_sources_that_are_not_similar_get_no_weight() -> None:
    far, none = retrieved("far", -0.9, [[99.0, 99.0]]), retrieved("none", 0.0, [[88.0, 88.0]])
    (start,) = starts([A, none, far], "weighted-average", 2)
    assert torch.equal(start.value, A.prompt.value)
    assert weights(start) == {"a": 1.0} and start.name == "a"


def test_nothing_similar_to_average_says_what_else_to_do() -> None:
    with pytest.raises(LibraryError, match=r"positive similarity.*best-of-top-k"):
        starts([retrieved("far", -0.1, [[1.0]])], "weighted-average", 2)


def test_the_sources_stay_as_they_were() -> None:
    (start,) = starts([A], "best-of-top-k", 2)
    start.value.zero_()
    assert A.prompt.value.tolist() == [[1, 10], [2, 20]]


def test_an_unknown_method_says_which_there_are() -> None:
    with pytest.raises(RecipeError, match=r"'mean'.*best-of-top-k, weighted-average"):
        starts([A], "mean", 2)  # type: ignore[arg-type]
    assert METHODS == (
        "best-of-top-k", "weighted-average", "halving", "task-vectors", "learned-mix", "multiplicative", "mixture",
    )  # fmt: skip
