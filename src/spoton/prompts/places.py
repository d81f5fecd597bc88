"""Opening libraries by the names that users give: `starter`, a folder, or a URL."""

from __future__ import annotations

from spoton.errors import LibraryError
from spoton.prompts.library import PromptLibrary, starter_library
from spoton.prompts.urls import local_folder

STARTER = "starter"
"""Name of the library that comes with spoton."""


def open_library(place: str) -> PromptLibrary:
    """Opens a library for reading.

    Args:
        place: `starter`, a folder, or a URL such as `hf://owner/name`.

    Raises:
        LibraryError: There is no such folder.
    """
    if place == STARTER:
        return starter_library()
    folder = local_folder(place)
    if folder is not None and not folder.is_dir():
        raise LibraryError(
            f"There is no prompt library at {place}: no such folder. Give a folder of prompt files, a URL such as "
            f"hf://owner/name, or `{STARTER}` for the one that comes with spoton."
        )
    return PromptLibrary(place, readonly=True)
