"""The cells of a study: every run it consists of, named by the hash of all that decides its result.

The hash of a cell that starts from other cells contains theirs, so a changed source recipe renames all that follows
from it, and nothing else. What a cell does is in ``cell_runner.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from spoton.evaluation.score import Mode, default_mode
from spoton.files import sha256_of_text
from spoton.study.plan.study_file import StudyFile, TaskEntry, TaskGroup
from spoton.tasks.task import Task
from spoton.transfer.similarity import Metric
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe

Kind = Literal[
    "zero-shot", "source", "scratch", "transfer", "weighted-average", "multi-task-mixture", "model-tuning"
]
Role = Literal["source", "target"]


class Held(NamedTuple):
    """The frozen model as it is held in memory, which decides results."""

    fingerprint: str
    dtype: str


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        kind: What is run.
        task: The task that is tuned and scored: a source task in a ``source`` cell, else a target.
        source: The source task of a ``transfer`` cell.
        seed: Of the start and of the order of examples; a transferred prompt comes from the source cell of this seed.
        recipe: How it is tuned; of a ``zero-shot`` cell only the input length counts.
        mode: How it is scored.
        data_hash: Of the task's rows.
        held: The model.
        needs: Names of the cells it starts from; the target's own run from scratch, which has its key, is last.
        k: How many sources a method takes.
        similarity: By which it takes them.
        source_recipe: How the prompt of a mixture is tuned first.
        model_recipe: How a ``model-tuning`` cell is tuned, instead of ``recipe``.
        halving: How it is compared with the other transfers to its target and seed, and perhaps dropped.
        rivals: Names of the source cells of all these, in order.
    """

    kind: Kind
    task: str
    seed: int
    recipe: Recipe
    mode: Mode
    data_hash: str
    held: Held
    source: str | None = None
    needs: tuple[str, ...] = ()
    k: int | None = None
    similarity: Metric | None = None
    source_recipe: Recipe | None = None
    model_recipe: ModelRecipe | None = None
    halving: Halving | None = None
    rivals: tuple[str, ...] = ()

    @property
    def role(self) -> Role:
        """Among which group of tasks its task is found."""
        return "source" if self.kind == "source" else "target"

    @property
    def name(self) -> str:
        """Readable words and the hash of all that decides the result."""
        words = [self.kind, self.source or "", self.task, str(self.seed), f"k{self.k}" if self.k else ""]
        slug = ".".join(re.sub(r"[^A-Za-z0-9_-]+", "-", word).strip("-")[:40] for word in words if word)
        return f"{slug}.{self.hash}"

    @property
    def hash(self) -> str:
        """12 hex digits over all that decides the result."""
        recipe = (
            str(self.recipe.max_input_tokens) if self.kind == "zero-shot" else self.recipe.model_dump_json()
        )
        if self.model_recipe is not None:
            recipe = self.model_recipe.model_dump_json()
        parts = [self.kind, *self.held, self.data_hash, recipe, self.mode, *self.needs]
        parts += [str(self.k), str(self.similarity)]
        if self.source_recipe is not None:
            parts.append(self.source_recipe.model_dump_json())
        if self.halving is not None:  # who else is tried decides who is dropped
            parts += [self.halving.model_dump_json(), *self.rivals]
        return sha256_of_text(parts)[:12]

    @property
    def words(self) -> str:
        """What it is, for people."""
        end = f", seed {self.seed}"
        match self.kind:
            case "zero-shot":
                return f"{self.task}: zero-shot"
            case "source":
                return f"source {self.task}{end}"
            case "scratch":
                return f"{self.task}: from scratch{end}"
            case "transfer":
                return f"{self.source} -> {self.task}{end}"
            case "model-tuning":
                return f"{self.task}: model tuning{end}"
        return f"{self.task}: {self.kind} of {self.k}{end}"


def cells_of(study: StudyFile, held: Held, load: Callable[[Role, str], Task]) -> list[Cell]:
    """All cells of a study, in the order in which they are best run: what others need first, seed by seed.

    Args:
        study: What shall be computed.
        held: The frozen model.
        load: Gives the task of a role and name.

    Raises:
        SpotonError: A task cannot be read, or a recipe does not fit.
    """
    make = _Maker(study, held, load)
    sources = {
        (entry.task, seed): make.cell("source", entry, seed)
        for seed in study.seeds
        for entry in study.sources.tasks
    }
    cells = [make.cell("zero-shot", entry, 0) for entry in [*study.targets.tasks, *study.candidates]]
    for seed in study.seeds:
        cells += [sources[entry.task, seed] for entry in study.sources.tasks]
        cells += [make.cell("scratch", entry, seed) for entry in study.targets.tasks]
        if seed == study.seeds[0]:  # early: they tell whether the targets are well chosen
            cells += [make.cell("scratch", entry, seed) for entry in study.candidates]
        for entry in study.targets.tasks:
            cells += make.transfers(entry, seed, sources)
    for seed in study.seeds:
        for entry in study.targets.tasks:
            cells += make.methods(entry, seed, sources)
    return cells + list(make.model_tuning())


class _Maker:
    """Cells of one study."""

    def __init__(self, study: StudyFile, held: Held, load: Callable[[Role, str], Task]) -> None:
        self._study, self._held, self._load = study, held, load
        self._hashes: dict[tuple[Role, str], tuple[str, Mode]] = {}

    def cell(self, kind: Kind, entry: TaskEntry, seed: int, **more: object) -> Cell:
        role: Role = "source" if kind == "source" else "target"
        group: TaskGroup = self._study.sources if role == "source" else self._study.targets
        if (role, entry.task) not in self._hashes:
            task = self._load(role, entry.task)
            self._hashes[role, entry.task] = task.data_hash(), entry.evaluation or default_mode(task)
        data_hash, mode = self._hashes[role, entry.task]
        recipe = group.recipe_of(entry).changed(seed=seed)
        return Cell(kind, entry.task, seed, recipe, mode, data_hash, self._held, **more)  # type: ignore[arg-type]

    def model_tuning(self) -> Iterator[Cell]:
        wanted = self._study.model_tuning
        for seed in self._study.seeds if wanted else ():
            for entry in self._study.targets.tasks:
                if wanted and (wanted.seeds is None or seed in wanted.seeds):
                    target = self._study.targets.recipe_of(entry).changed(seed=seed)
                    yield self.cell("model-tuning", entry, seed, model_recipe=wanted.recipe_of(target))

    def transfers(self, entry: TaskEntry, seed: int, sources: dict[tuple[str, int], Cell]) -> Iterator[Cell]:
        tried = [one.task for one in self._study.sources.tasks if self._study.goes(one.task, entry.task)]
        halving = self._study.halving if len(tried) > 1 else None
        rivals = tuple(sources[source, seed].name for source in tried) if halving else ()
        for source in tried:
            needs = (sources[source, seed].name,)
            yield self.cell(
                "transfer", entry, seed, source=source, needs=needs, halving=halving, rivals=rivals
            )

    def methods(self, entry: TaskEntry, seed: int, sources: dict[tuple[str, int], Cell]) -> Iterator[Cell]:
        retrieval = self._study.retrieval
        from_scratch = self.cell("scratch", entry, seed).name
        usable = [cell.name for (name, _), cell in sources.items() if self._study.goes(name, entry.task)]
        for method in retrieval.methods:
            for k in retrieval.k:
                if k <= len(usable) and not (method == "weighted-average" and k == 1):
                    yield self.cell(
                        method, entry, seed, needs=(*usable, from_scratch), k=k,
                        similarity=retrieval.similarity[0],
                        source_recipe=self._mixture_recipe(seed) if method == "multi-task-mixture" else None,
                    )  # fmt: skip

    def _mixture_recipe(self, seed: int) -> Recipe:
        """How a prompt is tuned on a mixture: as a source, and its last checkpoint counts (SPoT, section 3.3)."""
        recipe = self._study.sources.recipe_of(TaskEntry(task="mixture"))
        return recipe.changed(seed=seed, evaluate_every=recipe.steps)
