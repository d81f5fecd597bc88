"""The entries of the study file for model tuning: what each run takes from its target and from the mixture."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from spoton.errors import RecipeError, StudyError
from spoton.study.plan.model_tuning import MixtureEntry
from spoton.study.plan.study_file import StudyFile, parse_study_file


def parse(mixture: dict[str, Any]) -> StudyFile:
    document = {"sources": {}, "targets": {"tasks": ["cb"]}, "model_tuning": {"mixture": mixture}}
    return parse_study_file(yaml.safe_dump(document), "study.yaml")


def test_a_mixture_has_its_own_recipe_and_sizes() -> None:
    study = parse(
        {"task": "mixture:mnli,qqp", "recipe": {"steps": 7, "learning_rate": 1e-5}, "train_size": 50}
    )
    (mixture,) = study.tasks_of("mixture")
    assert isinstance(mixture, MixtureEntry)
    recipe = mixture.recipe_of(3)
    assert (recipe.steps, recipe.learning_rate, recipe.seed) == (7, 1e-5, 3)
    assert study.sizes_of("mixture") == (50, 200, None)
    assert StudyFile(sources={}, targets={"tasks": ["cb"]}).tasks_of("mixture") == []


@pytest.mark.parametrize(
    ("mixture", "told"),
    [
        ({}, r"model_tuning.mixture.task is missing"),
        ({"task": "mnli", "train": 5}, r"there is no such field; did you mean train_size"),
        ({"task": "mnli", "recipe": {"length": 5}}, r"model_tuning.mixture: .*length"),
        ({"task": "mnli", "recipe": {"learning_rate": 0}}, r"model_tuning.mixture: .*learning_rate"),
        ({"task": "mnli", "recipe": {"seed": 1}}, r"under seeds"),
        (
            {"task": "mnli", "seeds": [0, 3]},
            r"model_tuning has the seeds \[3\], which are not among the study's \[0, 1, 2\]",
        ),
        ({"task": "mnli", "train_size": 0}, r"model_tuning.mixture.train_size"),
    ],
)
def test_mistakes_in_a_mixture_are_named(mixture: dict[str, Any], told: str) -> None:
    with pytest.raises((StudyError, RecipeError), match=told):
        parse(mixture)
