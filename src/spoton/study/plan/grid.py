"""Which cells a study has: the combinations of its sources, targets and seeds.

Nothing runs here, and rows are read only through `facts`, so a study can also be planned from published sizes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypedDict

from spoton.errors import StudyError
from spoton.evaluation.score import Mode
from spoton.prompts.listing import Identity
from spoton.study.plan.cell_base import Held, TaskRole
from spoton.study.plan.cells import (
    COMBINATIONS,
    Cell,
    Combination,
    LibrarySource,
    ModelMixture,
    ModelTuning,
    MultiTaskMixture,
    MultiTaskModelTuning,
    Noise,
    Scratch,
    Source,
    Transfer,
    ZeroShot,
)
from spoton.study.plan.study_file import StudyFile
from spoton.study.plan.task_groups import TaskEntry
from spoton.transfer.sources import same_rows, same_texts
from spoton.tuning.recipe import Recipe


class TaskFacts(NamedTuple):
    """The properties of a task that decide results.

    Attributes:
        data_hash: Hash of its rows.
        mode: How it is scored if its entry does not say.
        name: `Task.name`; its entry may call it otherwise: a path, or an alias. Empty: as its entry does.
        source: `Task.source`.
    """

    data_hash: str
    mode: Mode
    name: str = ""
    source: str = ""


class PromptFacts(NamedTuple):
    """The properties of a library's prompt that decide results, and how it was tuned.

    Attributes:
        task: The task that it was tuned on.
        content_hash: `SoftPrompt.content_hash()`.
        data_hash: Hash of the rows of that task.
        recipe: How it was tuned.
        seed: Seed of that run.
        mode: How it was scored.
        source: Origin of the rows of that task (`Task.source`).
    """

    task: str
    content_hash: str
    data_hash: str
    recipe: Recipe
    seed: int
    mode: Mode
    source: str = ""


class _Common(TypedDict):
    """Fields of every cell."""

    task: str
    seed: int
    recipe: Recipe
    mode: Mode
    data_hash: str
    held: Held
    folder: Path | None


def cells_of(
    study: StudyFile,
    held: Held,
    facts: Callable[[TaskRole, str], TaskFacts],
    prompts: Mapping[str, PromptFacts] = MappingProxyType({}),
    folder: Path | None = None,
) -> list[Cell]:
    """Returns all cells of a study in the best order to run them: cells that others need first, seed by seed.

    Args:
        study: The study.
        held: The frozen model.
        facts: Returns the facts of the task of a role and name.
        prompts: The prompts of a library that are sources, by name.
        folder: The study's folder, if it is on this machine.

    Raises:
        StudyError: The study names sources that it does not have, one source twice, or a k that no target has.
        SpotonError: A task cannot be read, or a recipe is not valid.
    """
    require_sources(study, prompts)
    grid = _Grid(study, held, facts, prompts, folder)
    grid.require_enough_sources()
    cells: list[Cell] = [*grid.given.values()]
    cells += [ZeroShot(**grid.target(entry, 0)) for entry in [*study.targets.tasks, *study.candidates]]
    for seed in study.seeds:
        cells += [grid.source(entry.task, seed) for entry in study.sources.tasks]
        cells += [grid.scratch(entry, seed) for entry in study.targets.tasks]
        if seed == study.seeds[0]:  # early: they show whether the targets are well chosen
            cells += [grid.scratch(entry, seed) for entry in study.candidates]
        for entry in study.targets.tasks:
            cells += grid.transfers(entry, seed)
        for entry in study.targets.tasks:
            cells += grid.controls(entry, seed)
    for seed in study.seeds:
        for entry in study.targets.tasks:
            cells += grid.methods(entry, seed)
    return [*cells, *grid.model_tuning(), *grid.multi_task_model_tuning()]


def require_sources(study: StudyFile, prompts: Mapping[str, PromptFacts]) -> None:
    """Refuses names that can only be checked once the prompts of a whole library are known.

    Raises:
        StudyError: `leave_out` names a source that does not exist, or a task and a prompt have one name.
    """
    if study.sources.library is None or not prompts:
        return
    tasks = {entry.task for entry in study.sources.tasks}
    if both := sorted(tasks & set(prompts)):
        raise StudyError(
            f"sources.tasks of the study names {', '.join(both)}, and the library {study.sources.library} has a prompt "
            "of that name. Remove the task, or name the prompts that you want under sources.prompts."
        )
    known = tasks | set(prompts)
    for pair in study.leave_out:
        if pair.source not in known:
            near = difflib.get_close_matches(pair.source, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Its sources are {', '.join(sorted(known))}."
            raise StudyError(
                f"leave_out names the source {pair.source}, which is neither a task of the study nor a prompt of the "
                f"library {study.sources.library}. {hint}"
            )


class _Grid:
    """Cells of one study."""

    def __init__(
        self,
        study: StudyFile,
        held: Held,
        facts: Callable[[TaskRole, str], TaskFacts],
        prompts: Mapping[str, PromptFacts],
        folder: Path | None,
    ) -> None:
        self._study, self._held, self._prompts, self._folder = study, held, prompts, folder
        self._facts = cache(facts)
        self._scratch: dict[tuple[str, int], Scratch] = {}
        self._common: dict[tuple[TaskRole, str, int], _Common] = {}
        self._left_out = {(pair.source, pair.target) for pair in study.leave_out}
        self._tuned = {
            (entry.task, seed): Source(**self._of("source", entry, seed))
            for seed in study.seeds
            for entry in study.sources.tasks
        }
        self.given = {name: self._given(name, one) for name, one in prompts.items()}
        self._names = [*(entry.task for entry in study.sources.tasks), *self.given]

    def source(self, name: str, seed: int) -> Source | LibrarySource:
        """Returns the cell of a source: one for each seed, or one for all seeds if the prompt comes from a library."""
        return self.given.get(name) or self._tuned[name, seed]

    def _given(self, name: str, prompt: PromptFacts) -> LibrarySource:
        return LibrarySource(
            task=name, seed=prompt.seed, recipe=prompt.recipe, mode=prompt.mode, data_hash=prompt.data_hash,
            held=self._held, prompt_hash=prompt.content_hash,
        )  # fmt: skip

    def _of(self, role: TaskRole, entry: TaskEntry, seed: int) -> _Common:
        """Returns the common fields of the cells of a task and seed."""
        found = self._common.get((role, entry.task, seed))
        if found is None:
            group = self._study.sources if role == "source" else self._study.targets
            facts = self._facts(role, entry.task)
            found = self._common[role, entry.task, seed] = {
                "task": entry.task, "seed": seed, "recipe": group.recipe_of(entry).changed(seed=seed),
                "mode": entry.evaluation or facts.mode, "data_hash": facts.data_hash, "held": self._held,
                "folder": self._folder,
            }  # fmt: skip
        return found

    def target(self, entry: TaskEntry, seed: int) -> _Common:
        """Returns the common fields of the cells of a target and seed."""
        return self._of("target", entry, seed)

    def scratch(self, entry: TaskEntry, seed: int) -> Scratch:
        """Returns the run from scratch of a target and seed."""
        place = entry.task, seed
        if place not in self._scratch:
            self._scratch[place] = Scratch(**self.target(entry, seed))
        return self._scratch[place]

    def transfers(self, entry: TaskEntry, seed: int) -> Iterator[Transfer]:
        """Yields one cell for each source that is tried on a target."""
        tried = [name for name in self._names if self._is_tried(name, entry.task)]
        halving = self._study.halving if len(tried) > 1 else None
        rivals = tuple(self.source(name, seed).name for name in tried) if halving else ()
        common = self.target(entry, seed)
        for source in tried:
            from_cell = self.source(source, seed).name
            yield Transfer(**common, source=source, from_cell=from_cell, halving=halving, rivals=rivals)

    def controls(self, entry: TaskEntry, seed: int) -> Iterator[Noise]:
        """Yields the controls of a target and seed; they are as large as the prompt of the first source.

        There is none if no source is known, as in a plan made without the library whose prompts are the sources.
        """
        if "noise" in self._study.controls and self._names:
            yield Noise(**self.target(entry, seed), like_cell=self.source(self._names[0], seed).name)

    def methods(self, entry: TaskEntry, seed: int) -> Iterator[Combination | MultiTaskMixture]:
        """Yields the cells of the retrieval methods that need their own runs, for every k."""
        retrieval = self._study.retrieval
        if not retrieval.methods:
            return
        usable = self._usable(entry)
        common = self.target(entry, seed)
        key_cell, similarity = self.scratch(entry, seed).name, retrieval.similarity[0]
        for method in retrieval.methods:
            for k in (k for k in retrieval.k if k <= len(usable)):
                if method == "multi-task-mixture":
                    yield MultiTaskMixture(
                        **common, source_cells=usable, key_cell=key_cell, k=k, similarity=similarity,
                        source_recipe=self._mixture_recipe(seed),
                    )  # fmt: skip
                elif (
                    k > 1 or method == "task-vectors"
                ):  # with one prompt, the other methods start where a transfer from it does: nothing is combined
                    kind = next(kind for kind in COMBINATIONS if kind.kind == method)
                    yield kind(**common, source_cells=usable, key_cell=key_cell, k=k, similarity=similarity)

    def _usable(self, entry: TaskEntry) -> tuple[str, ...]:
        """Returns the names of the source cells that may be retrieved for a target."""
        cells = [*self._tuned.items(), *(((name, 0), cell) for name, cell in self.given.items())]
        return tuple(cell.name for (name, _), cell in cells if self._is_tried(name, entry.task))

    def require_enough_sources(self) -> None:
        """Refuses a k that is larger than the number of source prompts of every target.

        Only a k that the study file gives is refused. A target with fewer source prompts has no cell of that k. Without
        the library whose prompts are sources, their number is not known.

        Raises:
            StudyError: A k is too large.
        """
        retrieval = self._study.retrieval
        open_library = self._study.sources.library is not None and not self.given
        if not retrieval.methods or "k" not in retrieval.model_fields_set or open_library:
            return
        most = max((len(self._usable(entry)) for entry in self._study.targets.tasks), default=0)
        if most and (large := [k for k in retrieval.k if k > most]):
            raise StudyError(
                f"retrieval.k of the study has {', '.join(map(str, large))}, but no target has more than {most} source "
                "prompts to retrieve (one for each source and seed). Lower k, or add sources."
            )

    def model_tuning(self) -> Iterator[ModelTuning]:
        """Yields model tuning with the seeds, targets and learning rates that the study file names."""
        wanted = self._study.model_tuning
        if wanted is None:
            return
        targets = self._study.targets.tasks
        for seed in [seed for seed in self._study.seeds if wanted.seeds is None or seed in wanted.seeds]:
            for entry in [e for e in targets if wanted.targets is None or e.task in wanted.targets]:
                common = self.target(entry, seed)
                for recipe in wanted.recipes_of(common["recipe"]):
                    yield ModelTuning(**common, model_recipe=recipe)

    def multi_task_model_tuning(self) -> Iterator[ModelMixture | MultiTaskModelTuning]:
        """Yields, seed by seed, the run on the mixture, and every run of model tuning once more from its weights."""
        mixture = self._study.mixture
        if mixture is None:
            return
        facts = self._facts("mixture", mixture.task)
        begun: dict[int, ModelMixture] = {}
        for cell in self.model_tuning():
            if mixture.seeds is not None and cell.seed not in mixture.seeds:
                continue
            if cell.seed not in begun:
                begun[cell.seed] = ModelMixture(
                    task=mixture.task, seed=cell.seed, recipe=Recipe.preset("decoder"),
                    mode=mixture.evaluation or facts.mode, data_hash=facts.data_hash, held=self._held,
                    model_recipe=mixture.recipe_of(cell.seed),
                )  # fmt: skip
                yield begun[cell.seed]
            shared = {name: getattr(cell, name) for name in (*_Common.__annotations__, "model_recipe")}
            yield MultiTaskModelTuning(**shared, from_cell=begun[cell.seed].name)

    def _is_tried(self, source: str, target: str) -> bool:
        return (source, target) not in self._left_out and not self._is_own(source, target)

    def _is_own(self, source: str, target: str) -> bool:
        """Returns whether a source is tuned on a target's own rows or texts, which would not be transfer.

        Names in the study file do not tell: a prompt tuned on `reviews.csv` has the task `reviews`, and `wic` is also
        `superglue/wic`. A mixture is a source for its own members, as GLUE is in the paper.
        """
        there = self._facts("target", target)
        if source in self.given:
            prompt = self._prompts[source]
            identity = Identity(self._held.fingerprint, prompt.task, prompt.data_hash, prompt.source)
        else:
            here = self._facts("source", source)
            identity = Identity(self._held.fingerprint, here.name or source, here.data_hash, here.source)
        names, name = (source, identity.task), there.name or target
        return (
            target in names
            or same_rows(identity, name, there.data_hash, there.source)
            or same_texts(identity, name, there.source)
        )

    def _mixture_recipe(self, seed: int) -> Recipe:
        """Returns the recipe for a mixture: that of a source, with only the last checkpoint (SPoT, section 3.3)."""
        recipe = self._study.sources.recipe_of(TaskEntry(task="mixture"))
        return recipe.changed(seed=seed, evaluate_every=recipe.steps)
