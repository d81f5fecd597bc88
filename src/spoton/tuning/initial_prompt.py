"""The start of a prompt: turns a recipe's `init` into a matrix, with the model's own tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import RecipeError
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.prompts.initial import (
    common_token_ids,
    from_label_words,
    from_prompt,
    from_text,
    from_uniform,
    from_vocabulary,
)
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.reading import is_file
from spoton.tasks.task import Task
from spoton.tuning.recipe import Recipe
from spoton.tuning.row_order import rows_of_step

STRATEGIES = ("vocabulary", "labels", "task", "uniform")
"""Values of `init` that are keywords; the others are `text:...` and the path of a prompt."""

# SPoT, appendix C: the 5,000 most common tokens.
_COMMON_TOKENS = 5000


def start_file(init: str, folder: Path | None = None) -> Path | None:
    """Returns the file that a recipe's `init` names; None if it is a strategy or a text, or there is no such file.

    Args:
        init: The recipe's start.
        folder: Where a relative path is looked for first, before the working directory.
    """
    if init in STRATEGIES or init.startswith("text:"):
        return None
    places = [Path(init)] if folder is None else [folder / init, Path(init)]
    return next((path for path in places if is_file(path)), None)


def is_start(init: str, folder: Path | None = None) -> bool:
    """Returns whether a recipe's `init` is a strategy, a text or a file that exists; `folder` as for `start_file`."""
    return init in STRATEGIES or init.startswith("text:") or start_file(init, folder) is not None


def no_start(init: str) -> RecipeError:
    """Returns the error for an `init` that is none of these."""
    return RecipeError(
        f"init is {init!r}: expected {', '.join(STRATEGIES)}, text:... or the path of a prompt, or with --init the "
        "name of a prompt in a library. If it is a path, there is no such file."
    )


def starting_prompt(model: FrozenModel, task: Task, recipe: Recipe) -> tuple[Tensor, list[Parent]]:
    """Returns the first prompt `[P, D]` of a run and the prompts it descends from.

    Raises:
        RecipeError: `init` is neither a strategy nor a file.
        PromptError: The prompt to start from is damaged or belongs to another model.
    """
    length, seed, init = recipe.length, recipe.seed, recipe.init
    if init == "uniform":
        return from_uniform(length, model.dim, seed), []
    if init == "task":
        return from_text(model.token_vectors(), task_text(model, task, length, seed), length), []
    if init.startswith("text:"):
        ids = model.encode_target(init.removeprefix("text:").strip(), end=False)
        return from_text(model.token_vectors(), ids, length), []
    if init == "vocabulary" or (init == "labels" and task.labels is None):
        return from_vocabulary(model.token_vectors(), _common(model), length, seed), []
    if init == "labels":
        labels = [model.encode_target(label, end=False) for label in task.labels or ()]
        return from_label_words(model.token_vectors(), labels, _common(model), length, seed), []
    file = start_file(init)
    if file is None:
        raise no_start(init)
    source = SoftPrompt.load(file)
    source.require_model(model.fingerprints, model.name)
    source.require_single("a start")
    parent = Parent(name=source.card.name, weight=1.0, hash=source.content_hash())
    return from_prompt(source.value, length), [parent]


def task_text(model: FrozenModel, task: Task, length: int, seed: int) -> list[int]:
    """Returns tokens that state a task: its instruction, then examples from the training split until `length` is full.

    Args:
        model: The model whose tokens are used.
        task: A task; its labels state it if it has no instruction.
        length: P.
        seed: Decides which examples.
    """
    says = task.instruction or f"Answer with one of: {', '.join(task.labels or ())}."
    ids = model.encode_target(says, end=False)
    for row in rows_of_step(len(task.train), min(len(task.train), length), 0, seed):
        if len(ids) >= length:
            break
        example = task.train[row]
        ids += model.encode_target(f"\n\n{example.input} {example.target}", end=False)
    return ids[:length]


@torch.no_grad()
def embedding_rms(model: FrozenModel) -> float:
    """Returns the root mean square over all numbers of the token vectors `[V, D]` at a prompt's position."""
    return float(model.token_vectors().square().mean().sqrt())


def _common(model: FrozenModel) -> list[int]:
    return common_token_ids(model.tokenizer, _COMMON_TOKENS)
