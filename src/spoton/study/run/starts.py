"""The start of a cell's prompt: a source's prompt, a combination of several, noise, or a prompt tuned on a mixture.

This module reads prompts from the study's folder. It tunes only the prompt of a mixture, which serves only as a start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import StudyError
from spoton.events import OnEvent
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.prompts.initial import from_prompt
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.study.plan.cell_base import TaskRole
from spoton.study.plan.cells import Cell, Combination, MultiTaskMixture, Noise, Transfer
from spoton.study.run.store import Store
from spoton.tasks.mixture import mix
from spoton.tasks.task import Task
from spoton.transfer.combining.methods import METHODS, starts
from spoton.transfer.ranking.similarity import most_similar
from spoton.transfer.sources import Retrieved
from spoton.tuning.initial_prompt import start_file, starting_prompt
from spoton.tuning.kept import tune_to_end
from spoton.tuning.parameterization import Collapsible
from spoton.tuning.prompt_run import Job
from spoton.tuning.recipe import Recipe


@dataclass(frozen=True)
class CellStart:
    """The start of a cell's prompt.

    Attributes:
        value: The start `[P, D]`; None: the start of the recipe.
        parents: The prompts it comes from.
        notes: Notes for the reader of the result.
        tuned_as: What is tuned in place of the prompt.
    """

    value: Tensor | None = None
    parents: tuple[Parent, ...] = ()
    notes: tuple[str, ...] = ()
    tuned_as: Collapsible | None = None


class Starts:
    """Starts of the cells of one study.

    Args:
        model: The frozen model.
        store: The study's folder.
        task: Returns the task of a role and name.
        sources: Names of the source tasks, as in the study file.
    """

    def __init__(
        self, model: FrozenModel, store: Store, task: Callable[[TaskRole, str], Task], sources: list[str]
    ) -> None:
        self._model, self._store, self._task, self._sources = model, store, task, sources

    def of(self, cell: Cell, on_event: OnEvent) -> CellStart:
        """Returns the start of a cell's prompt.

        Raises:
            StudyError: A prompt it needs does not exist, or a target has no key.
            PromptError: A prompt it needs is damaged, or belongs to another model.
            Interrupted: Ctrl-C while a mixture was tuned.
        """
        if isinstance(cell, Transfer):
            return self._from(self._store.prompt(cell.from_cell), cell.from_cell, cell.recipe.length)
        if isinstance(cell, Noise):
            return self._noise(cell)
        if isinstance(cell, Combination):
            return self._combination(cell)
        if isinstance(cell, MultiTaskMixture):
            return self._mixture(cell, on_event)
        return self._of_recipe(self._task(cell.role, cell.task), cell.recipe)

    def _of_recipe(self, task: Task, recipe: Recipe) -> CellStart:
        """Returns the start of a recipe, read here if it is a file that may be in the study's folder."""
        located = self._located(recipe)
        if located is recipe:
            return CellStart()
        value, parents = starting_prompt(self._model, task, located)
        return CellStart(value, tuple(parents))

    def _located(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the path of the file that `init` names; the same one if it names none."""
        file = start_file(recipe.init, self._store.local)
        return recipe if file is None else recipe.changed(init=str(file))

    def _from(self, prompt: SoftPrompt, name: str, length: int) -> CellStart:
        prompt.require_model(self._model.fingerprints, self._model.name)
        parent = Parent(name=name, weight=1.0, hash=prompt.content_hash())
        return CellStart(from_prompt(prompt.value, length), (parent,))

    def _combination(self, cell: Combination) -> CellStart:
        """Combines the k nearest source prompts by the cell's method."""
        assert cell.kind in METHODS

        def own() -> Tensor:
            recipe = self._located(cell.recipe)
            return starting_prompt(self._model, self._task("target", cell.task), recipe)[0]

        (start,) = starts(self._retrieved(cell), cell.kind, cell.recipe.length, own)
        return CellStart(start.value, start.parents, (f"{cell.kind} of {start.name}.",), start.tuned_as)

    def _noise(self, cell: Noise) -> CellStart:
        """Returns normal noise `[P, D]` with the root mean square of a source's prompt."""
        like = self._store.prompt(cell.like_cell)
        like.require_model(self._model.fingerprints, self._model.name)
        draw = torch.Generator().manual_seed(cell.seed)
        noise = torch.randn(cell.recipe.length, like.value.shape[1], generator=draw)
        return CellStart(
            noise * like.value.pow(2).mean().sqrt(), (), (f"Noise as large as {cell.like_cell}.",)
        )

    def _retrieved(self, cell: Combination | MultiTaskMixture) -> list[Retrieved]:
        """Returns the k source prompts of all tasks and seeds with keys nearest to the target's (SPoT, section 3.3)."""
        key = self._store.prompt(cell.key_cell).key
        if key is None:
            raise StudyError(f"{cell.key_cell} has no key: its recipe ends before its key_step.")
        prompts = ((name, self._store.prompt(name)) for name in cell.source_cells)
        return most_similar(key, prompts, cell.k, cell.similarity)

    def _mixture(self, cell: MultiTaskMixture, on_event: OnEvent) -> CellStart:
        """Returns the last state of a prompt tuned on a mixture of the top k and the target (SPoT, section 3.3)."""
        # By their rows: two files of one name in different folders are two sources.
        by_rows = {self._task("source", name).data_hash(): name for name in self._sources}
        names = sorted({by_rows[one.prompt.card.data_hash] for one in self._retrieved(cell)})
        members = [self._task("source", name) for name in names]
        members.append(self._task("target", cell.task))
        mixed = mix("+".join(task.name for task in members), members, seed=cell.seed)
        begun = self._of_recipe(mixed, cell.source_recipe)
        job = Job(
            mixed, cell.source_recipe, begun.value, begun.parents, resume=True, on_event=on_event,
            checkpoint=first_stage(self._store.checkpoint(cell.name)), phase=f"{cell.words}, mixture",
        )  # fmt: skip
        tuned = tune_to_end(self._model, job)
        start = self._from(tuned.prompt, mixed.name, cell.recipe.length)
        return replace(start, notes=(f"Mixture of {', '.join(names)} and {cell.task}.",))


def first_stage(checkpoint: Path | None) -> Path | None:
    """Returns where a cell keeps the checkpoint of its mixture."""
    return checkpoint and checkpoint.with_suffix(".mixture")
