"""Pages of the Python reference: which names stand on which page. mkdocstrings fills them from docstrings."""

from __future__ import annotations

import importlib

PAGES = {
    "prompts": ("Prompts and libraries", ["SoftPrompt", "Card", "PromptLibrary", "Entry", "starter_library"]),
    "models": (
        "Models",
        ["load_model", "FrozenModel", "list_models", "pull_model", "Engine", "Batch", "engine_for"],
    ),
    "tasks": (
        "Tasks",
        ["resolve_task", "load_task", "list_tasks", "Task", "Example", "TaskInfo", "DataSpec"],
    ),
    "tuning": (
        "Tuning",
        [
            "tune",
            "Tuned",
            "Recipe",
            "PRESETS",
            "tune_together",
            "Job",
            "tune_model",
            "ModelRecipe",
            "diagnose",
            "Diagnosis",
        ],
    ),
    "evaluation": ("Evaluation", ["evaluate", "Evaluation", "predict", "Prediction", "form_for"]),
    "transfer": ("Transfer", ["adapt", "Adapted", "retrieve", "Retrieved", "sources_for", "similarity"]),
    "exchange": ("Other systems", ["export_prompts", "Exported", "read_foreign", "ForeignPrompt"]),
    "errors": ("Errors", []),
}
"""By room: the title of its page and the names on it; none: all of the module."""


def python_pages() -> dict[str, str]:
    """The Markdown of each page by its name.

    Raises:
        AttributeError: A name is not there anymore.
    """
    pages = {}
    for room, (title, names) in PAGES.items():
        module = importlib.import_module(f"spoton.{room}")
        for name in names:
            getattr(module, name)
        blocks = [f"::: spoton.{room}.{name}\n" for name in names] or [
            f"::: spoton.{room}\n    options:\n      show_root_heading: false\n"
        ]
        pages[f"{room}.md"] = "\n".join([f"# {title}\n", f"From `spoton.{room}`.\n", *blocks])
    return pages
