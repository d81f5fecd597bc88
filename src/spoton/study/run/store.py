"""The folder of a study: files that are complete or absent, on this machine or at any fsspec URL.

    study.yaml                     what to compute
    cells/<cell>.json              the result of a finished cell; written last, so if it exists, the cell is complete
    prompts/<cell>.safetensors     the prompt of a cell
    failures/<cell>.json           the last error of a cell with its traceback, and the number of attempts
    work/<cell>.checkpoint         an interrupted cell (local folders only)

This module knows names and bytes, and about a result only whether it is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import fsspec

from spoton.errors import StudyError
from spoton.files import atomic_write
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.remote import reached
from spoton.tuning.kept import whole_document

STUDY_FILE = "study.yaml"

_COLUMNS = frozenset({"name", "kind", "task", "scores", "seconds"})  # of every result
_AT_ONCE = 500  # files requested at a time; object stores answer in parallel


class Store:
    """A study's folder.

    Args:
        place: A local path, or an fsspec URL such as `s3://bucket/study`.

    Attributes:
        place: The path or URL as given.
        local: The path, if it is on this machine; else None.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self._system: Any
        self.local: Path | None = None
        try:
            with self._reached(ImportError, ValueError):  # some drivers connect here
                self._system, self._root = fsspec.core.url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise StudyError(
                f"Cannot open {self.place}: {error}. Expected a folder, or a URL that fsspec knows (s3://, gs://, "
                "hf://, ...); some need a package of their own, such as s3fs."
            ) from error
        protocol = self._system.protocol
        is_local = "file" in (protocol if isinstance(protocol, tuple | list) else (protocol,))
        self.local = Path(self._root) if is_local else None

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, or None if it does not exist."""
        try:
            if self.local is not None:
                return (self.local / name).read_bytes()
            with self._reached():
                return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes a file so that no reader ever sees part of it; object stores guarantee this themselves."""
        if self.local is not None:
            atomic_write(self.local / name, data)
            return
        path = f"{self._root}/{name}"
        with self._reached():
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data)

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        path = f"{self._root}/{name}"
        with self._reached():
            if self._system.exists(path):
                self._system.rm_file(path)

    def names(self, folder: str, suffix: str) -> set[str]:
        """Returns the names of the files in a folder that end in `suffix`, without the suffix."""
        self._system.invalidate_cache()
        try:
            with self._reached():
                found = self._system.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return set()
        files = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return {name.removesuffix(suffix) for name in files if name.endswith(suffix) and name[0] != "."}

    def result(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a cell; None if it is missing, empty, truncated or of another cell."""
        return _result(self.read(f"cells/{name}.json"), name)

    def results(self, names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Yields name and result of many cells, in order; many files are requested from an object store at a time."""
        if self.local is not None:
            for name in names:
                yield name, self.result(name)
            return
        waiting = iter(names)
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            paths = {name: self._system._strip_protocol(f"{self._root}/cells/{name}.json") for name in some}
            with self._reached():
                contents = self._system.cat(list(paths.values()), recursive=False, on_error="omit")
            for name, path in paths.items():
                yield name, _result(contents.get(path), name)

    def prompt(self, name: str) -> SoftPrompt:
        """Returns the prompt of a cell.

        Raises:
            StudyError: There is no such prompt.
            PromptError: The file is damaged.
        """
        file = f"prompts/{name}.safetensors"
        data = self.read(file)
        if data is None:
            raise StudyError(f"{self.place} has no {file}. Remove cells/{name}.json to have it tuned again.")
        return SoftPrompt.from_bytes(data, f"{self._root}/{file}")

    def checkpoint(self, name: str) -> Path | None:
        """Returns where an unfinished cell keeps its checkpoint; None if the folder is not local."""
        return None if self.local is None else self.local / "work" / f"{name}.checkpoint"

    def _reached(self, *own: type[Exception]) -> AbstractContextManager[None]:
        """Wraps errors of the driver, except the given types; see `spoton.remote.reached`."""
        if self.local is not None:  # the system's own words name the path
            return nullcontext()
        return reached(f"The study {self.place}", StudyError, FileNotFoundError, *own)


def _result(data: bytes | None, name: str) -> dict[str, Any] | None:
    """Returns the result in a file's bytes if it is complete and of this cell, else None."""
    document = whole_document(data)
    return (
        document
        if document is not None and _COLUMNS <= document.keys() and document["name"] == name
        else None
    )
