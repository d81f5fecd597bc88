"""What a comparison says of transfer, and of the neighbour that needs no model."""

from __future__ import annotations

import pytest

from spoton.evaluation.baseline import classical
from spoton.transfer.comparison import Scores, worth
from tests.tiny import toy_task


def scores(*test: float) -> Scores:
    return Scores(validation=test, test=test)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ((100.0,), "the prompt is ahead"),
        ((0.0,), "not worth its cost"),
        ((75.5,), "hardly worth"),
        ((70.0, 90.0), "hardly worth"),  # within the deviation over seeds
    ],
)
def test_a_prompt_is_worth_its_cost_only_beyond_noise(own: tuple[float, ...], says: str) -> None:
    neighbour = classical(toy_task())
    shifted = tuple(score - 75.0 + (neighbour.score("test") or 0.0) for score in own)
    told = worth(scores(*shifted), neighbour, "accuracy")
    assert says in told and "seconds" in told and f"{neighbour.score('test'):.1f}" in told


def test_without_a_test_split_validation_decides() -> None:
    neighbour = classical(toy_task(test=()))
    assert "validation accuracy" in worth(Scores((80.0,), ()), neighbour, "accuracy")
