"""Study files: what is wrong in one is told by name, and the presets are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from spoton.errors import RecipeError, SpotonError, StudyError
from spoton.study.plan.study_file import parse_study_file, preset_text, read_study_file, study_presets
from spoton.tasks import list_tasks

SMALL: dict[str, Any] = {"sources": {"tasks": ["mnli"]}, "targets": {"tasks": ["cb"]}}


def parse(**changes: Any) -> Any:
    return parse_study_file(yaml.safe_dump(SMALL | changes), "study.yaml")


def test_names_are_tasks_and_recipes_add_up() -> None:
    study = parse(
        targets={
            "tasks": ["cb", {"task": "rte", "recipe": {"steps": 7}}],
            "recipe": {"steps": 90, "length": 5},
        }
    )
    cb, rte = study.targets.tasks
    assert (study.targets.recipe_of(cb).steps, study.targets.recipe_of(rte).steps) == (90, 7)
    assert study.targets.recipe_of(rte).length == 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target": {}}, "target: there is no such field; did you mean targets?$"),
        ({"seeds": []}, "seeds has to be"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"targets": {"tasks": []}}, "at least one task"),
        ({"targets": {"tasks": ["cb", "cb"]}}, "cb is listed twice"),
        ({"candidates": ["cb"]}, "both target and candidate"),
        ({"leave_out": [{"source": "mnl", "target": "cb", "why": "x"}]}, "did you mean mnli"),
        ({"retrieval": {"k": [0]}}, "k has to be"),
        ({"retrieval": {"methods": ["best"]}}, "retrieval.methods.0"),
        ({"sources": {"tasks": ["mnli"], "train_size": 0}}, "sources.train_size"),
        ({"retrieval": {"similarity": []}}, "retrieval.similarity: found an empty list.*list average_tokens"),
        ({"retrieval": {"similarity": ["average_tokens"] * 2}}, "average_tokens is listed twice; keep one"),
        (
            {"retrieval": {"methods": ["weighted-average"] * 2}},
            "retrieval.methods: weighted-average is listed",
        ),
        ({"retrieval": {"k": [2, 2]}}, "retrieval.k: 2 is listed twice"),
        ({"candidates": ["rte", "rte"]}, "candidates: rte is listed twice"),
        ({"sources": {"library": "starter", "prompts": ["a", "a"]}}, "sources.prompts: a is listed twice"),
        ({"sources": {"tasks": ["a"], "library": "starter", "prompts": ["a"]}}, "both a task and a prompt"),
        ({"targets": {"tasks": ["cb"], "recipe": {"seed": 5}}}, "targets.recipe: found seed 5.*under seeds"),
        ({"candidates": [{"task": "rte", "recipe": {"seed": 5}}]}, "candidates.0.recipe: found seed 5"),
        ({"model_tuning": {"recipe": {"seed": 5}}}, "model_tuning.recipe: found seed 5"),
        (
            {"sources": {"tasks": ["mnli"], "recipe": {"learning_rate": "auto"}}},
            "sources.recipe: found learning_rate auto.*give a number",
        ),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(StudyError, match=told.replace("?", r"\?")):
        parse(**changes)


def test_a_wrong_recipe_is_told_when_the_file_is_read() -> None:
    with pytest.raises(RecipeError, match=r", cb: .*learning_rate"):
        parse(targets={"tasks": ["cb"], "recipe": {"learning_rate": -1}})
    with pytest.raises(RecipeError, match=r", mnli: .*stepz: there is no such field; did you mean steps\?$"):
        parse(sources={"tasks": ["mnli"], "recipe": {"stepz": 2}})


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [\n", ""])
def test_what_is_no_mapping_is_told(text: str) -> None:
    with pytest.raises(StudyError, match=r"study\.yaml"):
        parse_study_file(text, "study.yaml")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="spoton study new"):
        read_study_file(tmp_path / "study.yaml")


def test_the_paper_is_as_the_catalog_has_it() -> None:
    study = parse_study_file(preset_text("spot-paper"), "paper")
    for group, role, n in ((study.sources, "source", 16), (study.targets, "target", 10)):
        known = {info.name for info in list_tasks(study="spot-paper", role=role)}
        assert {entry.task for entry in group.tasks} == known
        assert len(known) == n
    source, target = (g.recipe_of(g.tasks[0]) for g in (study.sources, study.targets))
    assert (source.steps, target.steps, target.key_step) == (262_144, 100_000, 10_000)
    assert (source.init, len(study.seeds)) == ("vocabulary", 3)


def test_presets_hold_together() -> None:
    assert study_presets() == ["quick", "spot-paper"]
    for name in study_presets():
        parse_study_file(preset_text(name), name)
    with pytest.raises(StudyError, match="quick"):
        preset_text("quik")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seeds": [7]}, r"model_tuning has the seeds \[7\]"), ({"seed": [0]}, "did you mean seeds"),
        ({"recipe": {"learning_rate": 0}}, "learning_rate"), ({"recipe": {"length": 3}}, "length"),
        ({"learning_rates": [0]}, "learning_rate"), ({"learning_rates": [1, 1]}, "different numbers"),
        ({"learning_rates": [1], "recipe": {"learning_rate": 1}}, "not both"),
        ({"targets": ["rte"]}, "model_tuning has the targets rte, which are not among the study's cb"),
    ],
)  # fmt: skip
def test_mistakes_in_model_tuning_are_named(wrong: dict[str, object], words: str) -> None:
    text = yaml.safe_dump({"sources": {}, "targets": {"tasks": ["cb"]}, "model_tuning": wrong})
    with pytest.raises((StudyError, RecipeError), match=words):
        parse_study_file(text, "study.yaml")


def test_rungs_of_halving_are_looks_of_every_target() -> None:
    text = "{{sources: {{tasks: [a, b]}}, targets: {{tasks: [b, c], recipe: {{steps: 60, evaluate_every: 20}}}}, {}}}"
    study = parse_study_file(text.format("halving: {rungs: [20, 40], keep: 0.25}"), "study.yaml")
    assert study.halving is not None and study.halving.keep == 0.25
    for wrong, told in (
        ("{rungs: [30]}", "30 steps"), ("{rungs: [60]}", "60 steps"), ("{rungs: [40, 20]}", "rising"),
        ("{rungs: [20], keeps: 0.5}", "did you mean keep"), ("{rungs: [20], keep: 1.0}", "halving.keep"),
    ):  # fmt: skip
        with pytest.raises(SpotonError, match=told):
            parse_study_file(text.format(f"halving: {wrong}"), "study.yaml")
