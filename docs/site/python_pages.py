"""Pages of the Python reference: which names are on which page. mkdocstrings fills them from docstrings."""

from __future__ import annotations

import importlib

PAGES = {
    "prompts": ("Prompts and libraries", "SoftPrompt Card PromptLibrary Entry starter_library"),
    "models": ("Models", "load_model FrozenModel list_models pull_model engine_for Engine Batch"),
    "tasks": ("Tasks", "resolve_task load_task list_tasks Task Example TaskInfo DataSpec"),
    "tuning": (
        "Tuning",
        "tune Tuned Recipe recipe.PRESETS tune_together Job tune_model ModelRecipe diagnose Diagnosis",
    ),
    "evaluation": ("Evaluation", "evaluate Evaluation predict Prediction form_for"),
    "transfer": ("Transfer", "adapt Adapted retrieve Retrieved sources_for similarity convert"),
    "exchange": ("Other systems", "export_prompts Exported read_foreign ForeignPrompt"),
    "errors": (
        "Errors",
        "SpotonError DataError PromptError PromptNotFoundError ModelError LibraryError RecipeError DownloadError "
        "DivergenceError StudyError ServingError Interrupted",
    ),
}
"""By package: title and names of its page. A name with a dot is a value, with the module that defines it."""


def python_pages() -> dict[str, str]:
    """Returns the Markdown of each page by its name.

    Raises:
        AttributeError: A name does not exist.
    """
    pages = {}
    for room, (title, names) in PAGES.items():
        blocks = [f"::: {_defined(f'spoton.{room}', name)}\n" for name in names.split()]
        pages[f"{room}.md"] = "\n".join([f"# {title}\n", f"Import these from `spoton.{room}`.\n", *blocks])
    return pages


def _defined(room: str, name: str) -> str:
    """Returns where a name is defined: in the package itself, a function may share its name with its module."""
    if "." in name:
        return f"{room}.{name}"
    return f"{getattr(importlib.import_module(room), name).__module__}.{name}"
