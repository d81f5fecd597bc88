"""The card: what it refuses, and that JSON keeps all of it."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from spoton.prompts import Card, Parent

REQUIRED = {"name": "news", "task": "news_sentiment", "model": "tiny", "model_fingerprint": "f00d"}


def test_four_fields_are_enough() -> None:
    card = Card.model_validate(REQUIRED)
    assert card.labels is None and card.scores == {} and card.parents == []


def test_json_round_trip() -> None:
    parent = Parent(name="movies", weight=0.75, similarity=-0.5, hash="0123456789abcdef")
    card = Card.model_validate({**REQUIRED, "parents": [parent], "recipe": {"nested": [1, {"a": None}]}})
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_created_now_in_utc() -> None:
    created = datetime.fromisoformat(Card.model_validate(REQUIRED).created)
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(created.tzinfo) - created) < timedelta(minutes=1)


def test_cards_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Card.model_validate(REQUIRED).name = "other"  # type: ignore[misc]  # the very mistake under test


@pytest.mark.parametrize("field", REQUIRED)
def test_required_fields_are_neither_missing_nor_empty(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Card.model_validate({key: value for key, value in REQUIRED.items() if key != field})
    with pytest.raises(ValidationError, match=field):
        Card.model_validate({**REQUIRED, field: ""})


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "blue"},
        {"scores": {"test": {"accuracy": 101.0}}},
        {"scores": {"test": {"accuracy": float("nan")}}},
        {"recipe": {"function": print}},
        {"parents": [{"name": "movies", "weight": float("inf"), "hash": ""}]},
    ],
)
def test_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Card.model_validate({**REQUIRED, **wrong})


def test_a_calibration_has_one_bias_per_label() -> None:
    calibration = {"bias": [0.5, -0.5], "temperature": 1.0, "rows": 8}
    with pytest.raises(ValidationError, match="2 biases of a calibration for 3 labels"):
        Card.model_validate({**REQUIRED, "labels": ["a", "b", "c"], "calibration": calibration})
