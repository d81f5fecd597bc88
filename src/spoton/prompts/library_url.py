"""Prompt libraries behind a URL: any file system of fsspec (`memory://`, `s3://`, `sftp://`, `hf://owner/name`, ...).

Prompt files are small, so such a library is mirrored: every listing asks the remote folder for its contents and fetches
the files that are new or changed. All reading then happens on the mirror, as on any folder.

A remote store has no hard links, so a name is checked before the write. If two processes add the same new name at the
same moment, the later one wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import fsspec

from spoton.errors import LibraryError, PromptError
from spoton.files import atomic_write, cache_folder
from spoton.hub_offline import hub_or_cache
from spoton.parsing import parse_json
from spoton.prompts.library import SUFFIX, PromptLibrary
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.remote import reached

_STATE = ".remote.json"


class RemoteLibrary(PromptLibrary):
    """A prompt library behind a URL; `PromptLibrary(url)` makes one.

    Attributes:
        url: The URL of the library.
        folder: Its mirror in the cache folder.

    Raises:
        LibraryError: fsspec does not know such a URL, or its driver is not installed.

    Examples:
        >>> library = PromptLibrary("memory://team/prompts")
        >>> library.list()
        []
    """

    def __init__(self, folder: Path | str, readonly: bool = False) -> None:
        self.url = str(folder).rstrip("/")
        try:
            with self._reached(ImportError, ValueError):  # some drivers connect here
                self._remote, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise LibraryError(
                f"{self.url} cannot be opened: {error}. Install the driver that fsspec names, or give a folder."
            ) from error
        mirror = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        super().__init__(cache_folder() / "libraries" / mirror, readonly)

    @property
    def place(self) -> str:
        """The URL of the library."""
        return self.url

    def add(self, prompt: SoftPrompt, *, name: str | None = None, replace: bool = False) -> Path:
        """Saves a prompt in the remote folder. See `PromptLibrary.add`.

        Raises:
            LibraryError: The name is malformed or taken, the library is read-only, or cannot be reached.
        """
        self._require_writable()
        name = prompt.card.name if name is None else name
        path = self.path(name)
        renamed = changed(prompt, card=prompt.card.model_copy(update={"name": name}))
        with self._reached():
            self._remote.invalidate_cache()
            if not replace and self._remote.exists(self._place(name)):
                raise LibraryError(
                    f"The library {self.url} already has a prompt {name!r}. "
                    "Choose another name, remove it first, or ask to replace it."
                )
            self._remote.makedirs(self._root, exist_ok=True)
            self._remote.pipe_file(self._place(name), renamed.to_bytes())
        self.refresh()
        return path

    def get(self, name: str) -> SoftPrompt:
        """Loads one prompt in its current remote version. See `PromptLibrary.get`."""
        self.refresh()
        return super().get(name)

    def remove(self, name: str) -> None:
        """Deletes one prompt from the remote folder. See `PromptLibrary.remove`."""
        self._require_writable()
        self.path(name)
        with self._reached():
            self._remote.invalidate_cache()
            if not self._remote.exists(self._place(name)):
                raise self._unknown(name)
            self._remote.rm_file(self._place(name))
        self.refresh()

    def refresh(self) -> None:
        """Updates the mirror to the contents of the remote folder.

        Raises:
            LibraryError: It cannot be reached, or needs credentials.
        """
        with self._reached():
            entries = self._listed()
            there = {file: _version(entry) for file, entry in entries.items()}
            known = self._known()
            for file, version in there.items():
                if known.get(file) != version or not _is_whole(self.folder / file, entries[file]):
                    atomic_write(self.folder / file, self._remote.cat_file(f"{self._root}/{file}"))
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name not in there:
                path.unlink(missing_ok=True)
        if there != known:
            atomic_write(self.folder / _STATE, json.dumps(there).encode())

    def _stems(self) -> Sequence[str]:
        self.refresh()
        return super()._stems()

    def _unknown(self, name: str) -> LibraryError:
        return LibraryError(str(super()._unknown(name)).replace(str(self.folder), self.url))

    def _require_writable(self) -> None:
        if self.readonly:
            raise LibraryError(f"The library {self.url} was opened to read. Open it to write.")

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}{SUFFIX}"

    def _listed(self) -> dict[str, dict[str, Any]]:
        """Returns what the driver knows of every remote prompt file, by file name."""
        self._remote.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self._remote.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        names = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}
        return {
            name: entry
            for name, entry in names.items()
            if name.endswith(SUFFIX) and entry.get("type") == "file"
        }

    def _known(self) -> dict[str, str]:
        """Returns the versions that the mirror was made from; empty if unknown."""
        try:
            known: dict[str, str] = parse_json((self.folder / _STATE).read_text())
        except (OSError, ValueError):
            return {}
        return known

    @contextmanager
    def _reached(self, *own: type[Exception]) -> Iterator[None]:
        """Wraps errors of the driver, except the given types; see `spoton.remote.reached`."""
        # Without a network, the Hub's client would retry for half a minute.
        waits_for_nothing = hub_or_cache() if self.url.startswith("hf://") else nullcontext()
        with (
            reached(f"The library {self.url}", LibraryError, LibraryError, PromptError, *own),
            waits_for_nothing,
        ):
            yield


def _version(entry: dict[str, Any]) -> str:
    """Returns the version identifier of a remote file."""
    return hashlib.sha256(str(sorted(entry.items(), key=str)).encode()).hexdigest()[:16]


def _is_whole(copy: Path, entry: dict[str, Any]) -> bool:
    """Returns whether the mirror has a file, of the remote size if the driver knows it."""
    if not copy.is_file():
        return False
    size = entry.get("size")
    return not isinstance(size, int) or copy.stat().st_size == size
