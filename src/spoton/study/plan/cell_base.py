"""What every cell of a study has: the values that decide its result, the name derived from them, and its work.

The hash of a cell that starts from other cells contains their hashes, so a changed source recipe renames the cells
that start from it, and no others. The kinds of cells are in `cells.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel
from pydantic_core import to_json

from spoton.evaluation.score import Mode
from spoton.files import sha256_of_file, sha256_of_text
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.initial_prompt import start_file
from spoton.tuning.recipe import Recipe

TaskRole = Literal["source", "target", "mixture"]
"""The group of the study file that a task belongs to; `mixture`: that of multi-task model tuning."""
ROLES: tuple[TaskRole, ...] = get_args(TaskRole)

CellKind = Literal[
    "zero-shot", "source", "scratch", "transfer", "noise", "weighted-average", "task-vectors", "learned-mix",
    "multiplicative", "multi-task-mixture", "model-tuning", "model-mixture", "multi-task-model-tuning",
]  # fmt: skip

# Fields of a recipe that every name contains, in the order of the first version. A field that was added later is part
# of a name only if its value differs from what runs did before the field existed, so that older cells keep their names.
_IN_EVERY_NAME = (
    "length", "init", "optimizer", "learning_rate", "weight_decay", "steps", "batch_size", "seed", "key_step",
    "evaluate_every", "patience", "max_input_tokens",
)  # fmt: skip
_AS_BEFORE = {"loss": "tokens"}  # later fields whose default differs from what runs did before


class Held(NamedTuple):
    """The frozen model and the type of its weights, which decide results."""

    fingerprint: str
    dtype: str


class Stage(NamedTuple):
    """Optimizer steps that a cell takes.

    Attributes:
        steps: Number of steps, without those that halving is expected to save.
        batch_size: Examples per step.
        prompt_length: P; 0 in model tuning.
        max_input_tokens: Longer inputs lose their middle.
        weights: Whether all weights are tuned, instead of a prompt.
    """

    steps: float
    batch_size: int
    prompt_length: int
    max_input_tokens: int
    weights: bool = False


class Work(NamedTuple):
    """The work of a cell for the model.

    Attributes:
        stages: The stages of tuning, in order.
        validations: How many times the validation split is scored.
        tests: How many times the test split is scored.
        prompt_length: P of the prompt that is scored; 0: the bare model.
        max_input_tokens: Longer inputs lose their middle.
        calibrations: How many times training rows are scored to fit a calibration.
    """

    stages: tuple[Stage, ...]
    validations: float
    tests: int
    prompt_length: int
    max_input_tokens: int
    calibrations: float = 0.0

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is tuned or scored."""
        return not (self.stages or self.validations or self.tests)


@dataclass(frozen=True, kw_only=True)
class CellBase:
    """What every cell has.

    Attributes:
        task: The task that is tuned and scored: a source task in a `Source`, else a target.
        seed: Seed of the start and of the order of examples.
        recipe: How prompts of this task are tuned with this seed.
        mode: How the task is scored.
        data_hash: Hash of the task's rows.
        held: The model.
        folder: The study's folder, where a file that `init` names is looked for first; None: not on this machine.
    """

    kind: ClassVar[CellKind]
    role: ClassVar[TaskRole] = "target"
    """The group that its task belongs to."""
    task: str
    seed: int
    recipe: Recipe
    mode: Mode
    data_hash: str
    held: Held
    folder: Path | None = None

    @property
    def start_file(self) -> Path | None:
        """The file that its recipe starts from, if there is one."""
        return start_file(self.recipe.init, self.folder)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells it starts from."""
        return ()

    @cached_property
    def name(self) -> str:
        """Readable words and the hash of everything that decides the result."""
        words = [self.kind, *self._slug()]
        slug = ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", word).strip("-")[:40] for word in words)
        return f"{slug}.{self.hash}"

    @cached_property
    def hash(self) -> str:
        """12 hex digits over everything that decides the result."""
        return sha256_of_text(self._decides())[:12]

    @property
    def words(self) -> str:
        """A description for people."""
        raise NotImplementedError

    def facts(self) -> dict[str, object]:
        """Returns the columns of its result that describe it, the same for all kinds; None if one has no meaning."""
        return {
            "name": self.name, "kind": self.kind, "task": self.task, "source": None, "seed": self.seed,
            "k": None, "similarity": None, "evaluation": self.mode, "needs": list(self.needs),
        }  # fmt: skip

    def tuned_by(self) -> Recipe | ModelRecipe:
        """Returns the recipe that its result names."""
        return self.recipe

    def work(self) -> Work:
        """Returns its work for the model."""
        return prompt_work(self.recipe, self.mode)

    def _slug(self) -> Iterator[str]:
        """Yields the words of the name between the kind and the hash."""
        yield self.task
        yield str(self.seed)

    def _decides(self) -> list[str]:
        """Returns everything that decides the result, in an order that must not change, since names depend on it."""
        return [
            self.kind, *self.held, self.data_hash, self._recipe_text(), self.mode, *self.needs, *self._retrieval(),
            *self._start(),
        ]  # fmt: skip

    def _start(self) -> list[str]:
        """Returns the hash of the file that its recipe starts from, whose content may change behind the name."""
        file = self.start_file
        return [] if file is None else [sha256_of_file(file)]

    def _recipe_text(self) -> str:
        return recipe_text(self.recipe)

    def _retrieval(self) -> tuple[str, str]:
        """Returns how many sources are retrieved, and by which similarity."""
        return "None", "None"


def recipe_text(recipe: BaseModel) -> str:
    """Returns a recipe in the form that a cell's name depends on: compact JSON in a fixed order."""
    values = recipe.model_dump(mode="json")
    named = {field: values[field] for field in _IN_EVERY_NAME if field in values}
    for field, info in type(recipe).model_fields.items():
        if field not in named:
            before = _AS_BEFORE.get(field, info.get_default(call_default_factory=True))
            if values[field] != before:
                named[field] = values[field]
    return to_json(named).decode()  # pydantic's own, which writes 1e-5 where json writes 1e-05


def stage_of(recipe: Recipe, share: float = 1.0) -> Stage:
    return Stage(share * recipe.steps, recipe.batch_size, recipe.length, recipe.max_input_tokens)


def evaluations_of(recipe: Recipe | ModelRecipe) -> int:
    """Returns how many prompts a run scores on the validation split after steps; an average counts as one more each."""
    candidates = 2 if isinstance(recipe, Recipe) and recipe.average else 1
    return candidates * -(-recipe.steps // recipe.evaluate_every)


def prompt_work(recipe: Recipe, mode: Mode, share: float = 1.0, *, starts_first: bool | None = None) -> Work:
    """Returns the work of tuning one prompt and scoring it once on the test split.

    Args:
        recipe: How it is tuned.
        mode: How it is scored; a calibration needs label scores.
        share: The share of the steps and evaluations that is expected to be taken.
        starts_first: Whether its start is scored; None: a start that says the task in words is.
    """
    evaluations, calibrations = share * evaluations_of(recipe), 0.0
    if starts_first is None:
        starts_first = recipe.init.startswith(("task", "text:"))
    if mode == "rank" and recipe.calibrate != "none":
        # The best prompt is scored again, next to its calibration; so is every candidate, if all are calibrated.
        calibrations = 1.0 + (evaluations if recipe.calibrate == "every" else 0.0)
        evaluations += 1
    evaluations += share * starts_first
    return Work(
        (stage_of(recipe, share),), evaluations, 1, recipe.length, recipe.max_input_tokens, calibrations
    )
