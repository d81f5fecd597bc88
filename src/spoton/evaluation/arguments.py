"""The arguments that tuning, evaluation and prediction have in common, refused if they are of another kind."""

from __future__ import annotations

from collections.abc import Sequence

from spoton.arguments import is_count, require_kind, shown
from spoton.errors import DataError, ModelError, PromptError
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.task import Example, Task


def require_loaded(model: object, task: object) -> None:
    """Refuses the name of a model or task in place of the model or task.

    Raises:
        ModelError: The model is not a frozen model.
        DataError: The task is not a task.
    """
    require_frozen(model)
    require_kind(task, Task, "task", DataError, "a task. Load it first: spoton.resolve_task(...)")


def require_frozen(model: object) -> None:
    """Refuses the name of a model, or a network, in place of a frozen model.

    Raises:
        ModelError: It is not a frozen model.
    """
    require_kind(
        model, FrozenModel, "model", ModelError, "a frozen model. Load it first: spoton.load_model(...)"
    )


def require_examples(examples: object) -> None:
    """Refuses the name of a split, or texts, in place of examples; only the first is looked at, since rows may be many.

    Raises:
        DataError: They are not examples.
    """
    advice = "examples of the task, such as task.test. To answer texts without targets, use spoton.predict"
    if isinstance(examples, (str, Task)) or not isinstance(examples, Sequence):
        raise DataError(f"examples is {shown(examples)}; expected a sequence of {advice}.")
    if examples and not isinstance(examples[0], Example):
        raise DataError(f"The first of the examples is {shown(examples[0])}; expected {advice}.")


def require_asked(model: object, prompt: object, max_tokens: object) -> None:
    """Refuses the name of a model, or a path or matrix in place of a prompt with its card.

    Raises:
        ModelError: The model is not a frozen model.
        PromptError: The prompt is not a prompt.
        DataError: `max_tokens` is not a count.
    """
    require_frozen(model)
    require_kind(
        prompt, SoftPrompt, "prompt", PromptError,
        "a soft prompt. Load it first: spoton.SoftPrompt.load(file), or get(name) of a library",
    )  # fmt: skip
    require_counts(max_tokens=max_tokens)


def require_counts(**counts: object) -> None:
    """Refuses what is neither None nor a whole number of at least 1.

    Raises:
        DataError: Names the argument.
    """
    for name, count in counts.items():
        if count is not None and not is_count(count):
            raise DataError(f"{name} is {shown(count)}; expected a whole number of at least 1.")
