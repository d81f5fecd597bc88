"""Sources that a study does not tune: prompts of a library, copied unchanged into the study's folder.

The copy makes the study self-contained: its results stay reproducible if the library changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spoton.errors import LibraryError, RecipeError, StudyError
from spoton.models.frozen import FrozenModel
from spoton.prompts.library import PromptLibrary
from spoton.prompts.places import open_library
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.study.plan.cells import LibrarySource
from spoton.study.plan.grid import PromptFacts
from spoton.tuning.recipe import Recipe


@dataclass(frozen=True)
class GivenSources:
    """The prompts of a library that are sources of a study.

    Attributes:
        place: `starter`, a folder or a URL.
        names: Names of the prompts; None: all that belong to the model and have a key.
    """

    place: str
    names: Sequence[str] | None = None

    @cached_property
    def _library(self) -> PromptLibrary:
        return open_library(self.place)

    def facts(self, model: FrozenModel) -> dict[str, PromptFacts]:
        """Returns the properties of each prompt that decide results, by name.

        Raises:
            LibraryError: A prompt does not exist, or the library has no prompt of the model.
            PromptError: A named prompt is damaged, or belongs to another model.
            StudyError: A named prompt is an ensemble.
        """
        found = {}
        for name in self._wanted(model):
            prompt = self.prompt(name, model)
            card = prompt.card
            found[name] = PromptFacts(
                card.task, prompt.content_hash(), card.data_hash, _recipe(prompt), card.seed or 0,
                "generate" if card.evaluation == "generate" else "rank", card.source,
            )  # fmt: skip
        return found

    def prompt(self, name: str, model: FrozenModel) -> SoftPrompt:
        """Returns a prompt, after checking that it belongs to the model and is not an ensemble.

        Raises:
            SpotonError: See `facts`.
        """
        prompt = self._library.get(name)
        prompt.require_model(model.fingerprints, model.name)
        if prompt.card.members:
            raise StudyError(
                f"{name} in the library {self.place} is an ensemble, and a run starts from one prompt. "
                "Name its members as sources instead."
            )
        return prompt

    def copied(self, cell: LibrarySource, model: FrozenModel) -> tuple[SoftPrompt, dict[str, Any]]:
        """Returns the prompt of a cell, and the columns of the cell's result, taken from the prompt's card.

        Raises:
            StudyError: The library now has a different prompt of that name.
            SpotonError: See `facts`.
        """
        prompt = self.prompt(cell.task, model)
        if prompt.content_hash() != cell.prompt_hash:
            raise StudyError(
                f"{cell.task} in the library {self.place} is not the prompt that the study was planned with. Plan "
                "again: cells that start from it will run again."
            )
        card = prompt.card
        scores = {split: by_metric for split, by_metric in card.scores.items() if card.metric in by_metric}
        return prompt, {
            "scores": {split: by_metric[card.metric] for split, by_metric in scores.items()}, "all_scores": scores,
            "splits": card.splits, "labels": None if card.labels is None else len(card.labels),
            "family": card.family, "metric": card.metric, "form": card.form, "source_of_rows": card.source,
            "steps": card.steps, "best_step": card.best_step, "prompt_hash": cell.prompt_hash,
            "library": self.place, **({"majority": card.majority} if card.majority else {}),
        }  # fmt: skip

    def _wanted(self, model: FrozenModel) -> Sequence[str]:
        if self.names is not None:
            return self.names
        accepted = set(model.fingerprints)
        names = [
            one.name
            for one in self._library.list()
            if one.identity.fingerprint in accepted and one.has_key and not one.card.members
        ]
        if not names:
            raise LibraryError(
                f"The library {self.place} has no prompt of {model.name} with a key, so none of its prompts can be a "
                "source. `spoton library list --library FOLDER` shows its prompts."
            )
        return names


def _recipe(prompt: SoftPrompt) -> Recipe:
    """Returns how a prompt was tuned, for the record only; the default recipe if its card does not say."""
    try:
        return Recipe(**prompt.card.recipe)
    except RecipeError:  # imported, or of a version with other fields
        return Recipe.preset("decoder")
