"""What does not fit a field is told in words: where, what was found, what was expected."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spoton.fields import problems, sentence


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    task: str


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = Field(default=1, ge=1)
    share: float = Field(default=0.5, gt=0, lt=1)
    limit: float = Field(default=1, allow_inf_nan=False, le=2.5)
    rate: float | Literal["auto"] = "auto"
    labels: tuple[str, ...] | Literal["auto", "none"] = "auto"
    texts: Annotated[str, Field(min_length=1)] | list[int] | list[Annotated[str, Field(min_length=1)]] = "a"
    seeds: list[int] = Field(default=[0], min_length=1)
    inner: _Inner | None = None
    entries: list[_Inner] = []
    whole: bool = True
    mark: str = ";"

    @field_validator("mark")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if len(value) != 1:
            raise ValueError("expected one character")
        if value == ",":
            raise ValueError("a comma is taken")
        return value

    @model_validator(mode="after")
    def _fits(self) -> _Fields:
        if self.steps > 100 and self.whole:
            raise ValueError("whole needs at most 100 steps")
        return self


def _found(values: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        _Fields.model_validate(values)
    return caught.value


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"steps": 0}, "steps: found 0; expected at least 1."),
        ({"steps": "ten"}, "steps: found 'ten'; expected a whole number."),
        ({"steps": 1.5}, "steps: found 1.5; expected a whole number."),
        ({"steps": None}, "steps: found nothing; expected a whole number."),
        ({"steps": [1, 2]}, "steps: found a list of 2; expected a whole number."),
        ({"share": 0}, "share: found 0; expected more than 0."),
        ({"share": 1.0}, "share: found 1.0; expected less than 1."),
        ({"limit": 3}, "limit: found 3; expected at most 2.5."),
        ({"limit": float("inf")}, "limit: found inf; expected a finite number."),
        ({"seeds": 3}, "seeds: found 3; expected a list, such as [3]."),
        ({"seeds": []}, "seeds: found a list of 0; expected a list that is not empty."),
        ({"whole": "maybe"}, "whole: found 'maybe'; expected true or false."),
        ({"mark": ";;"}, "mark: found ';;'; expected one character."),
        ({"mark": ","}, "mark: a comma is taken."),
        ({"steps": 200}, "whole needs at most 100 steps."),
        ({"inner": {}}, "inner.task is missing."),
        ({"inner": ["a"]}, "inner: found a list of 1; expected a mapping."),
        ({"entries": [{"task": "a"}, 5]}, "entries.1: found 5; expected a mapping."),
        ({"stepss": 1}, "stepss: there is no such field; did you mean steps?"),
        ([], "found a list of 0; expected a mapping."),
    ],
)
def test_a_field_that_does_not_fit_is_told(values: Any, told: str) -> None:
    assert sentence(_found(values).errors(), _Fields.model_fields) == told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"rate": "x"}, "rate: found 'x'; expected a number or 'auto'"),
        ({"labels": 3}, "labels: found 3; expected a list or 'auto' or 'none'"),
        ({"labels": [1, 2]}, "labels.0: found 1; expected text"),
        ({"texts": ""}, "texts: found ''; expected a text that is not empty"),
        ({"texts": ["a", ""]}, "texts.1: found ''; expected a text that is not empty"),
        ({"texts": 5}, "texts: found 5; expected text or a list"),
    ],
)
def test_kinds_of_one_field_are_told_as_one(values: dict[str, Any], told: str) -> None:
    assert problems(_found(values).errors()) == [told]


def test_every_field_is_told() -> None:
    found = _found({"steps": 0, "inner": {"tsk": "a"}}).errors()
    assert problems(found, ["task"]) == [
        "steps: found 0; expected at least 1",
        "inner.task is missing",
        "inner.tsk: there is no such field; did you mean task?",
    ]


def test_names_are_listed_if_none_is_near_and_that_is_wanted() -> None:
    found = _found({"color": 1}).errors()
    assert sentence(found, ["steps", "share"]) == "color: there is no such field; there is: steps, share."
    assert sentence(found, ["steps", "share"], listed=False) == "color: there is no such field."
