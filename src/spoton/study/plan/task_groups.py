"""Entries of the study file that name tasks and say how each is read and tuned: one task, the targets, the sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from spoton.evaluation.score import Mode
from spoton.tasks.data_spec import DataSpec
from spoton.tuning.recipe import Recipe

CHECKED = ConfigDict(frozen=True, extra="forbid")

_Value = TypeVar("_Value")


def _require_once(values: Iterable[object]) -> None:
    twice = sorted(str(value) for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"{', '.join(twice)} is listed twice; keep one")


def each_once(values: list[_Value]) -> list[_Value]:
    _require_once(values)
    return values


def _for_all_runs(recipe: dict[str, Any]) -> dict[str, Any]:
    if "seed" in recipe:
        raise ValueError(
            f"found seed {recipe['seed']}, but runs have the seeds of the study; remove it here, list it under seeds"
        )
    if recipe.get("learning_rate") == "auto":
        raise ValueError(
            "found learning_rate auto, which is chosen where one prompt is tuned alone, not in a study; give a number"
        )
    return recipe


Seed = Annotated[int, Field(ge=0, lt=2**63)]
RecipeChanges = Annotated[dict[str, Any], AfterValidator(_for_all_runs)]


class TaskEntry(BaseModel):
    """One task of a study, and the settings for this task only."""

    model_config = CHECKED

    task: str = Field(min_length=1)
    """As for `spoton tune`: a task of the catalog, a file, hub:owner/name, or mixture:a,b."""
    options: DataSpec = DataSpec()
    """How its rows are read: input, target, template, labels, data_dir, ..."""
    recipe: RecipeChanges = {}
    """Changes to the recipe for this task."""
    evaluation: Mode | None = None
    """rank or generate; null: decided by the task."""


def _names_as_entries(tasks: Any) -> Any:
    return [{"task": t} if isinstance(t, str) else t for t in tasks] if isinstance(tasks, list) else tasks


def _each_task_once(tasks: list[TaskEntry]) -> list[TaskEntry]:
    _require_once(entry.task for entry in tasks)
    return tasks


TaskEntries = Annotated[list[TaskEntry], BeforeValidator(_names_as_entries), AfterValidator(_each_task_once)]


class TaskGroup(BaseModel):
    """The sources, or the targets, of a study."""

    model_config = CHECKED

    tasks: TaskEntries = []
    """Names, or mappings with `task` and its own settings."""
    recipe: RecipeChanges = {}
    """`preset` and changes to it."""
    train_size: int | None = Field(default=None, ge=1)
    """At most this many training examples, each label in proportion; null: all."""
    validation_size: int | None = Field(default=None, ge=1)
    """At most this many examples to choose checkpoints by."""
    test_size: int | None = Field(default=None, ge=1)
    """At most this many examples for the score."""

    def recipe_of(self, entry: TaskEntry) -> Recipe:
        """Returns how one of the tasks is tuned.

        Raises:
            RecipeError: A value is not valid, or there is no such preset.
        """
        changes = self.recipe | entry.recipe
        return Recipe.preset(str(changes.pop("preset", "decoder")), **changes)


class SourceGroup(TaskGroup):
    """The sources of a study: tasks whose prompts it tunes, and prompts of a library."""

    library: str | None = None
    """`starter`, a folder or a URL: its prompts are sources without tuning; null: the study tunes all sources."""
    prompts: Annotated[list[str], AfterValidator(each_once)] | None = Field(default=None, min_length=1)
    """Which prompts of the library; null: all that belong to the model and have a key."""

    @model_validator(mode="after")
    def _prompts_are_of_a_library(self) -> SourceGroup:
        if self.prompts is not None and self.library is None:
            raise ValueError(
                "prompts names prompts of a library, so library has to say which library; give both"
            )
        both = sorted({entry.task for entry in self.tasks} & set(self.prompts or ()))
        if both:
            raise ValueError(f"{', '.join(both)} is both a task and a prompt of the library; keep one")
        return self
