"""Which libraries a command reads from, and how a prompt is named on the command line.

A prompt is a file, or a name in one of the libraries. Heavy packages are imported when a library is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spoton.cli.output import note
from spoton.errors import LibraryError
from spoton.reading import is_file as is_regular_file

if TYPE_CHECKING:
    from spoton.prompts import PromptLibrary, SoftPrompt


def own_library(place: str | None) -> PromptLibrary:
    """Returns the library at `place`, a folder, a URL or `starter` (read-only), or the user's own library."""
    from spoton.prompts import PromptLibrary, default_library_path, starter_library
    from spoton.prompts.places import STARTER

    if place == STARTER:
        return starter_library()
    return PromptLibrary(place or default_library_path())


def open_libraries(places: Sequence[str] | None) -> list[PromptLibrary]:
    """Returns the libraries at `places`; by default the user's own, if there is one, and the starter library.

    Args:
        places: Folders, URLs, or `starter`.

    Raises:
        LibraryError: A folder does not exist.
    """
    from spoton.prompts import PromptLibrary, default_library_path, starter_library
    from spoton.prompts.places import open_library

    if not places:
        own = default_library_path()
        return [*([PromptLibrary(own, readonly=True)] if own.exists() else []), starter_library()]
    return [open_library(place) for place in places]


def find_prompt(spec: str, places: Sequence[str] | None = None) -> SoftPrompt:
    """Returns a prompt by file or by name.

    Args:
        spec: A path, or a name in one of the libraries; the first library that has the name wins.
        places: See `open_libraries`.

    Raises:
        PromptError: The file cannot be used.
        LibraryError: No library has the name.
    """
    from spoton.prompts import SoftPrompt

    if is_file(spec):
        return SoftPrompt.load(Path(spec))
    library = find_library(spec, places)
    if library is not None:
        return library.get(spec)  # for a damaged prompt this says what is wrong with it
    folders = ", ".join(library.place for library in open_libraries(places))
    shown = repr(spec) if len(spec) <= 60 else f"{spec[:60]!r}..."
    raise LibraryError(
        f"{shown} is neither a prompt file nor a name in {folders}. "
        "`spoton library list` shows the names; `--library` names another place."
    )


def find_library(name: str, places: Sequence[str] | None = None) -> PromptLibrary | None:
    """Returns the first library that has a prompt of that name, damaged or not; None if there is no such library."""
    for library in open_libraries(places):
        if name in {entry.name for entry in library.list()} or name in library.damaged:
            return library
    return None


def is_file(spec: str) -> bool:
    """Whether an argument on the command line means a file; a folder of that name does not count."""
    return is_regular_file(spec) or "/" in spec or spec.endswith(".safetensors")


def note_damaged(library: PromptLibrary) -> None:
    """Names the damaged files that a listing left out."""
    for name, reason in library.damaged.items():
        note(f"Skipped {name} in {library.place}: {reason}")
