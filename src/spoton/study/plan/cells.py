"""The cells of a study: one class for each kind of run, named by the hash of all that decides its result.

The hash of a cell that starts from other cells contains theirs, so a changed source recipe renames all that follows
from it, and nothing else. Which cells a study has is in ``grid.py``, how they are carried out in ``cell_runner.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json

from spoton.evaluation.score import Mode
from spoton.files import sha256_of_text
from spoton.transfer.similarity import Metric
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe

Kind = Literal[
    "zero-shot", "source", "scratch", "transfer", "weighted-average", "multi-task-mixture", "model-tuning"
]
Role = Literal["source", "target"]

# Fields of a recipe that every name contains, in the order of the first names. Later fields are part of a name
# only where they are set to something else than what runs did before; so cells that ran before keep their names.
_IN_EVERY_NAME = (
    "length", "init", "optimizer", "learning_rate", "weight_decay", "steps", "batch_size", "seed", "key_step",
    "evaluate_every", "patience", "max_input_tokens",
)  # fmt: skip
_AS_BEFORE = {"loss": "tokens"}  # of a later field whose default is not what runs did before


class Held(NamedTuple):
    """The frozen model as it is held in memory, which decides results."""

    fingerprint: str
    dtype: str


class Stage(NamedTuple):
    """Optimizer steps that a cell takes.

    Attributes:
        steps: How many; those that halving is expected to save are left out.
        batch_size: Examples a step.
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
    """What a cell puts through the model.

    Attributes:
        stages: What is tuned, in order.
        validations: How many times the validation split is scored.
        tests: How many times the test split is scored.
        prompt_length: P of the prompt that is scored; 0: the bare model.
        max_input_tokens: Longer inputs lose their middle.
    """

    stages: tuple[Stage, ...]
    validations: float
    tests: int
    prompt_length: int
    max_input_tokens: int


@dataclass(frozen=True, kw_only=True)
class CellBase:
    """What every cell has.

    Attributes:
        task: The task that is tuned and scored: a source task in a `Source`, else a target.
        seed: Of the start and of the order of examples.
        recipe: How prompts of this task are tuned with this seed.
        mode: How it is scored.
        data_hash: Of the task's rows.
        held: The model.
    """

    kind: ClassVar[Kind]
    role: ClassVar[Role] = "target"
    """Among which group of tasks its task is found."""
    task: str
    seed: int
    recipe: Recipe
    mode: Mode
    data_hash: str
    held: Held

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells it starts from."""
        return ()

    @cached_property
    def name(self) -> str:
        """Readable words and the hash of all that decides the result."""
        words = [self.kind, *self._slug()]
        slug = ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", word).strip("-")[:40] for word in words)
        return f"{slug}.{self.hash}"

    @cached_property
    def hash(self) -> str:
        """12 hex digits over all that decides the result."""
        return sha256_of_text(self._decides())[:12]

    @property
    def words(self) -> str:
        """What it is, for people."""
        raise NotImplementedError

    def facts(self) -> dict[str, object]:
        """What its result says of it: the columns of all kinds, None where one has no meaning."""
        return {
            "name": self.name, "kind": self.kind, "task": self.task, "source": None, "seed": self.seed,
            "k": None, "similarity": None, "evaluation": self.mode, "needs": list(self.needs),
        }  # fmt: skip

    def tuned_by(self) -> Recipe | ModelRecipe:
        """The recipe that its result names."""
        return self.recipe

    def work(self) -> Work:
        """What it puts through the model."""
        stage = _stage(self.recipe)
        return Work((stage,), _looks(self.recipe), 1, self.recipe.length, self.recipe.max_input_tokens)

    def _slug(self) -> Iterator[str]:
        """Words of the name between the kind and the hash."""
        yield self.task
        yield str(self.seed)

    def _decides(self) -> list[str]:
        """All that decides the result, in the order in which names have always been made."""
        return [
            self.kind, *self.held, self.data_hash, self._recipe_text(), self.mode, *self.needs, *self._retrieval()
        ]  # fmt: skip

    def _recipe_text(self) -> str:
        return recipe_text(self.recipe)

    def _retrieval(self) -> tuple[str, str]:
        """How many sources are retrieved and by which similarity."""
        return "None", "None"


@dataclass(frozen=True, kw_only=True)
class ZeroShot(CellBase):
    """Scores of the bare model and of always giving the most frequent answer; of the recipe the input length counts."""

    kind = "zero-shot"

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: zero-shot"

    def work(self) -> Work:
        """One pass over each split that is scored."""
        return Work((), 1, 1, 0, self.recipe.max_input_tokens)

    def _recipe_text(self) -> str:
        return str(self.recipe.max_input_tokens)


@dataclass(frozen=True, kw_only=True)
class Source(CellBase):
    """A prompt tuned on a source task."""

    kind = "source"
    role = "source"

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"source {self.task}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Scratch(CellBase):
    """A prompt tuned on a target from scratch; its early state is the key of the target."""

    kind = "scratch"

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: from scratch, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Transfer(CellBase):
    """A prompt tuned on a target from the prompt of a source of the same seed.

    Attributes:
        source: The source task.
        from_cell: Name of the source's cell.
        halving: How it is compared with the other transfers to its target and seed, and perhaps dropped.
        rivals: Names of the source cells of all these, in order.
    """

    kind = "transfer"
    source: str
    from_cell: str
    halving: Halving | None = None
    rivals: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells it starts from."""
        return (self.from_cell,)

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.source} -> {self.task}, seed {self.seed}"

    def facts(self) -> dict[str, object]:
        """What its result says of it."""
        return super().facts() | {"source": self.source}

    def work(self) -> Work:
        """As tuning from scratch, with a score of the start; less what halving is expected to save."""
        share = self.halving.share(len(self.rivals), self.recipe.steps) if self.halving else 1.0
        recipe = self.recipe
        looks = share * (1 + _looks(recipe))
        return Work((_stage(recipe, share),), looks, 1, recipe.length, recipe.max_input_tokens)

    def _slug(self) -> Iterator[str]:
        yield self.source
        yield from super()._slug()

    def _decides(self) -> list[str]:
        parts = super()._decides()
        if self.halving is not None:  # who else is tried decides who is dropped
            parts += [self.halving.model_dump_json(), *self.rivals]
        return parts


@dataclass(frozen=True, kw_only=True)
class _Retrieving(CellBase):
    """A cell that retrieves source prompts.

    Attributes:
        source_cells: Names of the cells whose prompts may be retrieved.
        key_cell: Name of the target's own run from scratch, which has its key.
        k: How many are retrieved.
        similarity: By which similarity.
    """

    source_cells: tuple[str, ...]
    key_cell: str
    k: int
    similarity: Metric

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells it starts from."""
        return (*self.source_cells, self.key_cell)

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: {self.kind} of {self.k}, seed {self.seed}"

    def facts(self) -> dict[str, object]:
        """What its result says of it."""
        return super().facts() | {"k": self.k, "similarity": self.similarity}

    def work(self) -> Work:
        """As tuning from scratch, with a score of the start."""
        plain = super().work()
        return plain._replace(validations=plain.validations + 1)

    def _slug(self) -> Iterator[str]:
        yield from super()._slug()
        yield f"k{self.k}"

    def _retrieval(self) -> tuple[str, str]:
        return str(self.k), self.similarity


@dataclass(frozen=True, kw_only=True)
class WeightedAverage(_Retrieving):
    """A prompt tuned on a target from the average of the k nearest source prompts (SPoT, section 3.3)."""

    kind = "weighted-average"


@dataclass(frozen=True, kw_only=True)
class MultiTaskMixture(_Retrieving):
    """A prompt tuned on a target from one of the k nearest sources and the target mixed (SPoT, section 3.3).

    Attributes:
        source_recipe: How the prompt of the mixture is tuned.
    """

    kind = "multi-task-mixture"
    source_recipe: Recipe

    def work(self) -> Work:
        """The mixture's steps, then those of the target; the mixture is scored on its validation split once."""
        plain = super().work()
        return plain._replace(
            stages=(_stage(self.source_recipe), *plain.stages), validations=plain.validations + 1
        )

    def _decides(self) -> list[str]:
        return [*super()._decides(), recipe_text(self.source_recipe)]


@dataclass(frozen=True, kw_only=True)
class ModelTuning(CellBase):
    """All weights of a copy of the model, tuned on a target.

    Attributes:
        model_recipe: How; ``recipe`` is that of the target's prompts, at whose data it is tuned.
    """

    kind = "model-tuning"
    model_recipe: ModelRecipe

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: model tuning, seed {self.seed}"

    def tuned_by(self) -> Recipe | ModelRecipe:
        """The recipe that its result names."""
        return self.model_recipe

    def work(self) -> Work:
        """Steps over all weights."""
        recipe = self.model_recipe
        stage = Stage(recipe.steps, recipe.batch_size, 0, recipe.max_input_tokens, weights=True)
        return Work((stage,), _looks(recipe), 1, 0, recipe.max_input_tokens)

    def _recipe_text(self) -> str:
        return recipe_text(self.model_recipe)


Cell = ZeroShot | Source | Scratch | Transfer | WeightedAverage | MultiTaskMixture | ModelTuning
"""One run of a study."""


def recipe_text(recipe: BaseModel) -> str:
    """A recipe as it enters the name of a cell: compact JSON in an order that does not change."""
    values = recipe.model_dump(mode="json")
    named = {field: values[field] for field in _IN_EVERY_NAME if field in values}
    for field, info in type(recipe).model_fields.items():
        if field not in named:
            before = _AS_BEFORE.get(field, info.get_default(call_default_factory=True))
            if values[field] != before:
                named[field] = values[field]
    return to_json(named).decode()  # pydantic's own, which writes 1e-5 where json writes 1e-05


def _stage(recipe: Recipe, share: float = 1.0) -> Stage:
    return Stage(share * recipe.steps, recipe.batch_size, recipe.length, recipe.max_input_tokens)


def _looks(recipe: Recipe | ModelRecipe) -> int:
    """Evaluations on the validation split during a run."""
    return -(-recipe.steps // recipe.evaluate_every)
