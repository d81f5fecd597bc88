"""The cells of a study: one class for each kind of run.

`cell_base.py` has what all cells have in common and how they are named, `grid.py` which cells a study has, and
`cell_runner.py` how they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spoton.study.plan.cell_base import (
    CellBase,
    Stage,
    Work,
    evaluations_of,
    prompt_work,
    recipe_text,
    stage_of,
)
from spoton.transfer.similarity import Similarity
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ZeroShot(CellBase):
    """Scores of a target without a prompt: the bare model, the most frequent answer, TF-IDF with logistic regression.

    Only the input length of the recipe and how it scores labels matter.
    """

    kind = "zero-shot"

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: zero-shot"

    def work(self) -> Work:
        """Returns its work: both splits are scored once."""
        return Work((), 1, 1, 0, self.recipe.max_input_tokens)

    def _recipe_text(self) -> str:
        # The usual score is not part of the name, so that older cells keep theirs.
        how = "" if self.recipe.label_score == "sum" else f" {self.recipe.label_score}"
        return f"{self.recipe.max_input_tokens}{how}"


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
class LibrarySource(CellBase):
    """A prompt of a library, copied into the study's folder, so that the study holds everything its results depend on.

    Its task is the prompt's name; its recipe and seed are those on its card. One cell serves all seeds of the study.

    Attributes:
        prompt_hash: `SoftPrompt.content_hash()`.
    """

    kind = "source"
    role = "source"
    prompt_hash: str

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"source {self.task}, of the library"

    def work(self) -> Work:
        """Returns no work: nothing is tuned or scored."""
        return Work((), 0, 0, 0, self.recipe.max_input_tokens)

    def _decides(self) -> list[str]:
        return ["library", *self.held, self.prompt_hash]


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
        halving: When it is compared with the other transfers to its target and seed, and may be dropped.
        rivals: Names of the source cells of all these transfers, in order.
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
        """Returns its work: tuning from scratch plus a score of the start, minus what halving is expected to save."""
        share = self.halving.share(len(self.rivals), self.recipe.steps) if self.halving else 1.0
        return prompt_work(self.recipe, self.mode, share, starts_first=True)

    def _slug(self) -> Iterator[str]:
        yield self.source
        yield from super()._slug()

    def _decides(self) -> list[str]:
        parts = super()._decides()
        if self.halving is not None:  # which cells are dropped depends on the other sources
            parts += [self.halving.model_dump_json(), *self.rivals]
        return parts


@dataclass(frozen=True, kw_only=True)
class Noise(CellBase):
    """A prompt tuned on a target from noise: the control that shows the effect of any start of that size.

    Attributes:
        like_cell: Name of the source's cell whose prompt has the same root mean square.
    """

    kind = "noise"
    like_cell: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells it starts from."""
        return (self.like_cell,)

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"noise -> {self.task}, seed {self.seed}"

    def work(self) -> Work:
        """As tuning from scratch, with a score of the start."""
        return prompt_work(self.recipe, self.mode, starts_first=True)


@dataclass(frozen=True, kw_only=True)
class _Retrieving(CellBase):
    """A cell that retrieves source prompts.

    Attributes:
        source_cells: Names of the cells whose prompts may be retrieved.
        key_cell: Name of the target's run from scratch, which has its key.
        k: Number of prompts to retrieve.
        similarity: The similarity that ranks them.
    """

    source_cells: tuple[str, ...]
    key_cell: str
    k: int
    similarity: Similarity

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
        return prompt_work(self.recipe, self.mode, starts_first=True)

    def _slug(self) -> Iterator[str]:
        yield from super()._slug()
        yield f"k{self.k}"

    def _retrieval(self) -> tuple[str, str]:
        return str(self.k), self.similarity


@dataclass(frozen=True, kw_only=True)
class Combination(_Retrieving):
    """A prompt tuned on a target from a combination of the k nearest source prompts."""


@dataclass(frozen=True, kw_only=True)
class WeightedAverage(Combination):
    """Starts from their average (SPoT, section 3.3)."""

    kind = "weighted-average"


@dataclass(frozen=True, kw_only=True)
class TaskVectors(Combination):
    """Starts from the target's own start plus the weighted sum of their displacements (arXiv 2408.01119)."""

    kind = "task-vectors"


@dataclass(frozen=True, kw_only=True)
class LearnedMix(Combination):
    """Tunes the weights of their mixture and a residual prompt together."""

    kind = "learned-mix"


@dataclass(frozen=True, kw_only=True)
class Multiplicative(Combination):
    """Tunes a prompt that they share and a mask of rank one that multiplies it (arXiv 2303.02861)."""

    kind = "multiplicative"


COMBINATIONS: tuple[type[Combination], ...] = (WeightedAverage, TaskVectors, LearnedMix, Multiplicative)


@dataclass(frozen=True, kw_only=True)
class MultiTaskMixture(_Retrieving):
    """A prompt tuned on a target, from a prompt tuned on a mixture of the k nearest sources and the target.

    See SPoT, section 3.3.

    Attributes:
        source_recipe: How the prompt of the mixture is tuned.
    """

    kind = "multi-task-mixture"
    source_recipe: Recipe

    def work(self) -> Work:
        """Returns its work: the mixture's steps, with one score on its validation split, then the target's steps."""
        plain = super().work()
        return plain._replace(
            stages=(stage_of(self.source_recipe), *plain.stages), validations=plain.validations + 1
        )

    def _decides(self) -> list[str]:
        return [*super()._decides(), recipe_text(self.source_recipe)]


@dataclass(frozen=True, kw_only=True)
class WeightTuning(CellBase):
    """A cell that tunes all weights of a copy of the model.

    Attributes:
        model_recipe: How the weights are tuned; `recipe` is that of prompts of the task, which decides a target's data.
    """

    model_recipe: ModelRecipe

    def tuned_by(self) -> Recipe | ModelRecipe:
        """The recipe that its result names."""
        return self.model_recipe

    def work(self) -> Work:
        """Returns its work: steps on all weights."""
        recipe = self.model_recipe
        stage = Stage(recipe.steps, recipe.batch_size, 0, recipe.max_input_tokens, weights=True)
        return Work((stage,), evaluations_of(recipe), 1, 0, recipe.max_input_tokens)

    def _recipe_text(self) -> str:
        return recipe_text(self.model_recipe)


@dataclass(frozen=True, kw_only=True)
class ModelTuning(WeightTuning):
    """All weights, tuned on a target."""

    kind = "model-tuning"

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: model tuning at {self.model_recipe.learning_rate:g}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class ModelMixture(WeightTuning):
    """All weights, tuned on a mixture and kept for the cells that start from them."""

    kind = "model-mixture"
    role = "mixture"

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.task}: model tuning, seed {self.seed}"

    def work(self) -> Work:
        """Returns its work: steps on all weights, without a test."""
        return super().work()._replace(tests=0)


@dataclass(frozen=True, kw_only=True)
class MultiTaskModelTuning(WeightTuning):
    """All weights, tuned on a target after they were tuned on a mixture (a baseline of Vu et al. 2022, section 2).

    Attributes:
        from_cell: Name of the mixture's cell of the same seed.
    """

    kind = "multi-task-model-tuning"
    from_cell: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells it starts from."""
        return (self.from_cell,)

    @property
    def words(self) -> str:
        """What it is, for people."""
        return (
            f"{self.task}: multi-task model tuning at {self.model_recipe.learning_rate:g}, seed {self.seed}"
        )

    def work(self) -> Work:
        """As model tuning, with a score of the start."""
        plain = super().work()
        return plain._replace(validations=plain.validations + 1)


Cell = (
    ZeroShot
    | Source
    | LibrarySource
    | Scratch
    | Transfer
    | Noise
    | Combination
    | MultiTaskMixture
    | ModelTuning
    | ModelMixture
    | MultiTaskModelTuning
)
"""One run of a study."""
