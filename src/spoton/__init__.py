"""spoton adapts a frozen language model to a new task by reusing soft prompts learned on other tasks.

This module is only the public surface. Every name is imported from its room on first use, so `import spoton`
needs neither torch nor transformers.

Examples:
    >>> import spoton
    >>> model = spoton.load_model("smollm2-135m")
    >>> task = spoton.resolve_task("reviews.csv", input="text", target="label")
    >>> tuned = spoton.tune(model, task, spoton.PRESETS["decoder"])
    >>> tuned.prompt.save("reviews.safetensors")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spoton.errors import SpotonError
    from spoton.evaluation import evaluate, predict
    from spoton.models import list_models, load_model
    from spoton.prompts import Card, PromptLibrary, SoftPrompt, starter_library
    from spoton.tasks import Example, Task, load_task, resolve_task
    from spoton.transfer import adapt, retrieve, similarity
    from spoton.tuning import PRESETS, Recipe, diagnose, tune

__all__ = [
    "PRESETS",
    "Card",
    "Example",
    "PromptLibrary",
    "Recipe",
    "SoftPrompt",
    "SpotonError",
    "Task",
    "__version__",
    "adapt",
    "diagnose",
    "evaluate",
    "list_models",
    "load_model",
    "load_task",
    "predict",
    "resolve_task",
    "retrieve",
    "similarity",
    "starter_library",
    "tune",
]

__version__: str

_ROOMS = {
    "spoton.errors": ("SpotonError",),
    "spoton.evaluation": ("evaluate", "predict"),
    "spoton.models": ("list_models", "load_model"),
    "spoton.prompts": ("Card", "PromptLibrary", "SoftPrompt", "starter_library"),
    "spoton.tasks": ("Example", "Task", "load_task", "resolve_task"),
    "spoton.transfer": ("adapt", "retrieve", "similarity"),
    "spoton.tuning": ("PRESETS", "Recipe", "diagnose", "tune"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a public name from its room on first use (PEP 562).

    Raises:
        AttributeError: if `name` is not public.
    """
    value: Any
    if name == "__version__":
        # Imported here, since it takes longer than all else that a command does before it watches for Ctrl-C.
        from importlib.metadata import version

        value = version("spoton")
    elif name in _ROOM_OF:
        value = getattr(import_module(_ROOM_OF[name]), name)
    else:
        raise AttributeError(f"module 'spoton' has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
