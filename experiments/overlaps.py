"""Tasks whose data have sentences in common, so that a prompt of one knows texts of the other."""

from __future__ import annotations

import shutil
from pathlib import Path

from spoton import PromptLibrary, starter_library

SHARED = (
    frozenset({"cr", "product_sentiment"}),
    frozenset({"subj", "sst2", "rotten_tomatoes", "movie_sentiment"}),
)
"""Names of tasks, and of their prompts in the starter library: reviews of products, and snippets of Rotten Tomatoes."""


def share_texts(target: str, source: str) -> bool:
    """Returns whether the source was tuned on texts of the target's data."""
    return any({target, source} <= group for group in SHARED)


def sources_without_shared_texts(target: str, folder: Path) -> PromptLibrary:
    """Copies the starter library without the prompts that share texts with a target.

    Args:
        target: Name of the task.
        folder: Where to; an empty folder.
    """
    for entry in starter_library().list():
        if not share_texts(target, entry.name):
            shutil.copy(entry.path, folder)
    return PromptLibrary(folder, readonly=True)
