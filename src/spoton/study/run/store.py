"""The folder of a study: files that are whole or absent, on this machine or behind any fsspec URL.

    study.yaml                     what shall be computed
    cells/<cell>.json              one finished cell; written last, so that its existence says it is complete
    prompts/<cell>.safetensors     the prompt of a cell
    failures/<cell>.json           what went wrong in a cell, how often, with its traceback
    work/<cell>.checkpoint         a cell that was interrupted (local folders only)

It knows names and bytes, and of a result no more than whether it is whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from spoton.errors import StudyError
from spoton.files import atomic_write
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tuning.kept import whole_document

STUDY_FILE = "study.yaml"

_COLUMNS = frozenset({"name", "kind", "task", "scores", "seconds"})  # of every result
_AT_ONCE = 500  # files asked for at a time; object stores answer them side by side


class Store:
    """A study's folder.

    Args:
        place: A local path, or an fsspec URL such as `s3://bucket/study`.

    Attributes:
        place: As given.
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
        """Returns the content of a file, or None if it is not there."""
        try:
            if self.local is not None:
                return (self.local / name).read_bytes()
            with self._reached():
                return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes a file that no reader ever meets half-written: object stores do so by themselves."""
        if self.local is not None:
            atomic_write(self.local / name, data)
            return
        path = f"{self._root}/{name}"
        with self._reached():
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        path = f"{self._root}/{name}"
        with self._reached():
            if self._system.exists(path):
                self._system.rm_file(path)

    def names(self, folder: str, suffix: str) -> set[str]:
        """Names of the files of one folder that end in `suffix`, without it."""
        self._system.invalidate_cache()
        try:
            with self._reached():
                found = self._system.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return set()
        files = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return {name.removesuffix(suffix) for name in files if name.endswith(suffix) and name[0] != "."}

    def result(self, name: str) -> dict[str, Any] | None:
        """Returns the result of a cell; None if it is not finished, or its file is empty, cut off or another's."""
        return _result(self.read(f"cells/{name}.json"), name)

    def results(self, names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Name and result of many cells, in order; object stores are asked for many at a time."""
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
            StudyError: There is none.
            PromptError: The file is damaged.
        """
        file = f"prompts/{name}.safetensors"
        data = self.read(file)
        if data is None:
            raise StudyError(f"{self.place} has no {file}. Remove cells/{name}.json to have it tuned again.")
        return SoftPrompt.from_bytes(data, f"{self._root}/{file}")

    def checkpoint(self, name: str) -> Path | None:
        """Where an unfinished cell keeps its state; None where files cannot be replaced in place."""
        return None if self.local is None else self.local / "work" / f"{name}.checkpoint"

    @contextmanager
    def _reached(self, *but: type[Exception]) -> Iterator[None]:
        """Turns whatever a driver raises into one message, but for some types: each has errors of its own."""
        try:
            yield
        except Exception as error:
            if self.local is not None or isinstance(error, (FileNotFoundError, *but)):
                raise  # of this machine, the system's own words name the path
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise StudyError(
                f"The study {self.place} cannot be used: {reason}. Check the address, your rights there, and whether "
                "it can be reached from here."
            ) from error


def _result(data: bytes | None, name: str) -> dict[str, Any] | None:
    """The result in a file's bytes, if it is whole and that of the cell."""
    document = whole_document(data)
    return (
        document
        if document is not None and _COLUMNS <= document.keys() and document["name"] == name
        else None
    )
