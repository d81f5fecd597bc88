"""Remote folders of prompt files: any file system of fsspec (`memory://`, `s3://`, `sftp://`, `hf://owner/name`, ...).

Prompt files are small, so such a folder is mirrored: `refresh` asks it for its contents and fetches the files that are
new or changed. All reading then happens on the mirror, as on any folder.

A remote store has no hard links, so a name is checked before the write. If two processes write the same new name at the
same moment, the later one wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import fsspec

from spoton.errors import LibraryError
from spoton.files import atomic_write, cache_folder
from spoton.hub_offline import hub_or_cache
from spoton.parsing import parse_json
from spoton.remote import reached

_STATE = ".remote.json"


class RemoteFolder:
    """A folder behind a URL, and its mirror.

    Args:
        url: Its URL.
        suffix: What the names of its files end with; others are not looked at.

    Attributes:
        url: The URL, without a slash at the end.
        mirror: Its mirror in the cache folder.

    Raises:
        LibraryError: fsspec does not know such a URL, or its driver is not installed.
    """

    def __init__(self, url: str, suffix: str) -> None:
        self.url = url.rstrip("/")
        self._suffix = suffix
        try:
            with self._reached(ImportError, ValueError):  # some drivers connect here
                self._remote, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise LibraryError(
                f"{self.url} cannot be opened: {error}. Install the driver that fsspec names, or give a folder."
            ) from error
        self.mirror = cache_folder() / "libraries" / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def write(self, file: str, content: bytes, *, overwrite: bool) -> None:
        """Writes a file.

        Raises:
            FileExistsError: There is such a file, and it may not be overwritten.
            LibraryError: The folder cannot be reached.
        """
        with self._reached(FileExistsError):
            self._remote.invalidate_cache()
            if not overwrite and self._remote.exists(self._place(file)):
                raise FileExistsError(file)
            self._remote.makedirs(self._root, exist_ok=True)
            self._remote.pipe_file(self._place(file), content)
        self.refresh()

    def remove(self, file: str) -> None:
        """Deletes a file.

        Raises:
            FileNotFoundError: There is no such file.
            LibraryError: The folder cannot be reached.
        """
        with self._reached(FileNotFoundError):
            self._remote.invalidate_cache()
            if not self._remote.exists(self._place(file)):
                raise FileNotFoundError(file)
            self._remote.rm_file(self._place(file))
        self.refresh()

    def refresh(self) -> None:
        """Updates the mirror to the contents of the remote folder.

        Raises:
            LibraryError: It cannot be reached, or needs credentials.
        """
        with self._reached():
            entries = self._listed()
            known = self._known()
            there: dict[str, str] = {}
            for file, entry in entries.items():
                version = _version(entry)
                if known.get(file) != version or not _is_whole(self.mirror / file, entry):
                    try:
                        content = self._remote.cat_file(self._place(file))
                    except FileNotFoundError:
                        continue  # removed by another process after the folder was read
                    atomic_write(self.mirror / file, content)
                there[file] = version
        for path in self.mirror.glob(f"*{self._suffix}"):
            if path.name not in there:
                path.unlink(missing_ok=True)
        if there != known:
            atomic_write(self.mirror / _STATE, json.dumps(there).encode())

    def _place(self, file: str) -> str:
        return f"{self._root}/{file}"

    def _listed(self) -> dict[str, dict[str, Any]]:
        """Returns what the driver knows of every remote file, by file name."""
        self._remote.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self._remote.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        names = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}
        return {
            name: entry
            for name, entry in names.items()
            if name.endswith(self._suffix) and entry.get("type") == "file"
        }

    def _known(self) -> dict[str, str]:
        """Returns the versions that the mirror was made from; empty if unknown."""
        try:
            known: dict[str, str] = parse_json((self.mirror / _STATE).read_text())
        except (OSError, ValueError):
            return {}
        return known

    @contextmanager
    def _reached(self, *own: type[Exception]) -> Iterator[None]:
        """Wraps errors of the driver, except the given types; see `spoton.remote.reached`."""
        # Without a network, the Hub's client would retry for half a minute.
        waits_for_nothing = hub_or_cache() if self.url.startswith("hf://") else nullcontext()
        with (
            reached(f"The library {self.url}", LibraryError, *own),
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
