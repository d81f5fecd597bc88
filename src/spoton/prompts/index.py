"""The index of a large library: heads, mean keys and mean displacements of its prompts, derived from their files.

It is in the cache folder, in one folder per library: an SQLite file of heads, and for every width D a plain file of
float32 rows, which only grows. A prompt is read again when its file's size or modification time changes. Missing or
damaged parts are rebuilt from the prompt files, which are usable without an index.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from spoton.errors import PromptError
from spoton.files import cache_folder, sha256_of_text
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float

_FORMAT = "1"
_TABLES = """
CREATE TABLE facts (format TEXT);
CREATE TABLE prompts (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, place INTEGER, length INTEGER, dim INTEGER, has_key INTEGER,
    size INTEGER, fingerprint TEXT, task TEXT, data_hash TEXT, source TEXT, card TEXT, damage TEXT
);
"""
# Prompts between two commits, so that little is lost if the first indexing is killed.
_AT_ONCE = 2000
# Rows of means in memory at once: some tens of megabytes.
_ROWS_AT_ONCE = 4096


class Head(NamedTuple):
    """The index entry of one prompt file.

    Attributes:
        name: Its name in the library.
        stamp: Size and modification time of the file when it was read.
        place: Row of its means among those of its width; None for a damaged file.
        length: P.
        dim: D.
        has_key: Whether the file holds a key: 1, else 0.
        size: Bytes.
        fingerprint: The model's fingerprint on the card.
        task: Task on the card.
        data_hash: Hash of the data on the card.
        source: Source on the card.
        card: Its card as JSON.
        damage: Why the file cannot be used; empty if it can.
    """

    name: str
    stamp: str
    place: int | None
    length: int
    dim: int
    has_key: int  # SQLite has no booleans
    size: int
    fingerprint: str
    task: str
    data_hash: str
    source: str
    card: str
    damage: str


class LibraryIndex:
    """The index of one library.

    Args:
        library: The library's folder, or another path that names it.
    """

    def __init__(self, library: Path) -> None:
        name = sha256_of_text([str(library.resolve())])[:16]
        self.folder = cache_folder() / "libraries" / name

    def heads(self, files: Mapping[str, str]) -> list[Head]:
        """Returns the head of every file, sorted by name, after reading new and changed files.

        Args:
            files: Paths of the library's prompt files by name, sorted; heads of other files are removed.
        """
        try:
            return self._refreshed(files)
        except (
            sqlite3.Error,
            ValueError,
            KeyError,
            TypeError,
        ):  # a damaged index: SQLite and the row types fail in any of these ways
            self.clear()
            return self._refreshed(files)

    def means(
        self, heads: Sequence[Head]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]]:
        """Yields mean tokens `[n, D]` of keys, and of keys minus starts; NaN if a file has no key or no start.

        The means are read in parts and not mapped, so that memory does not grow with the library.

        Args:
            heads: Heads of undamaged prompts of one width, as `heads` returns them.

        Yields:
            The places `[n]` of a part in `heads`, and both matrices.
        """
        dim, places = heads[0].dim, np.array([head.place for head in heads], dtype=np.intp)
        order = np.argsort(places)
        with self._rows_of(dim).open("rb") as file:
            for start in range(0, int(places.max()) + 1, _ROWS_AT_ONCE):
                first, last = np.searchsorted(places[order], [start, start + _ROWS_AT_ONCE])
                rows = np.fromfile(file, dtype="<f4", count=_ROWS_AT_ONCE * 2 * dim).reshape(-1, 2, dim)
                part = order[first:last]
                found = rows[places[part] - start]
                yield part, found[:, 0], found[:, 1]

    def clear(self) -> None:
        """Removes the index; the next use rebuilds it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _refreshed(self, files: Mapping[str, str]) -> list[Head]:
        stamps = {name: stamp for name, path in files.items() if (stamp := _stamp(path))}
        with self._opened() as database:
            self._require_means(database)
            known = {head.name: head for head in _read(database)}
            gone = [(name,) for name in known.keys() - stamps.keys()]
            with database:
                database.executemany("DELETE FROM prompts WHERE name = ?", gone)
            new = [
                name
                for name, stamp in stamps.items()
                # Permissions, a disk or a newer spoton can mend a file without changing its stamp.
                if name not in known or known[name].stamp != stamp or known[name].damage
            ]
            for start in range(0, len(new), _AT_ONCE):
                heads = [
                    self._head(name, Path(files[name]), stamps[name])
                    for name in new[start : start + _AT_ONCE]
                ]
                known |= {head.name: head for head in heads}
                with database:
                    database.executemany(
                        "INSERT OR REPLACE INTO prompts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        heads,
                    )
        return [known[name] for name in stamps]

    def _require_means(self, database: sqlite3.Connection) -> None:
        """Raises `ValueError` if a file of means is missing, truncated, or does not hold whole rows."""
        last = database.execute("SELECT dim, MAX(place) FROM prompts WHERE place IS NOT NULL GROUP BY dim")
        for dim, place in last.fetchall():
            path = self._rows_of(dim)
            size = path.stat().st_size if path.is_file() else 0
            if size % (8 * dim) or size < (place + 1) * 8 * dim:
                raise ValueError("a file of means is not what the table says")

    def _head(self, name: str, path: Path, stamp: str) -> Head:
        """Reads a prompt file in full and appends its means."""
        try:
            prompt = SoftPrompt.load(path)
        except PromptError as error:
            return Head(name, stamp, None, 0, 0, False, 0, "", "", "", "", "", str(error))
        missing = torch.full((prompt.dim,), torch.nan)
        key = missing if prompt.key is None else prompt.key.mean(0)
        moved = missing if prompt.key is None or prompt.start is None else key - prompt.start.mean(0)
        with self._rows_of(prompt.dim).open("ab") as file:
            place = file.tell() // (8 * prompt.dim)
            file.write(torch.stack([key, moved]).numpy().astype("<f4", copy=False).tobytes())
        card, size = prompt.card, int(stamp.partition(" ")[0])
        return Head(
            name, stamp, place, prompt.length, prompt.dim, prompt.key is not None, size, card.model_fingerprint,
            card.task, card.data_hash, card.source, card.model_dump_json(), "",
        )  # fmt: skip

    def _rows_of(self, dim: int) -> Path:
        return self.folder / f"means-{dim}.f32"

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Opens the table of heads under a lock, so that one process at a time writes it and the means."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(self.folder / "lock"),
            closing(sqlite3.connect(self.folder / "heads.sqlite")) as database,
        ):
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
            if not tables:
                for old in self.folder.glob("means-*.f32"):
                    old.unlink()
                database.executescript(_TABLES)
                with database:
                    database.execute("INSERT INTO facts VALUES (?)", (_FORMAT,))
            if database.execute("SELECT format FROM facts").fetchone() != (_FORMAT,):
                raise ValueError("the index has another format")
            yield database


def cosines(
    key: Float[Tensor, "P D"],
    index: LibraryIndex,
    heads: Sequence[Head],
    *,
    displacement: Float[Tensor, "P D"] | None = None,
) -> NDArray[np.float64]:
    """Returns the cosines `[N]` of the mean token of `key` with those of the prompts; NaN for a prompt without a key.

    Args:
        key: The target's key `[P, D]`.
        index: The index that returned the heads.
        heads: Heads of undamaged prompts of width D.
        displacement: Start `[P, D]` of the target's key, to compare displacements (key minus start) instead of keys.
    """
    wanted = (key if displacement is None else key - displacement).double().mean(0).numpy()
    found = np.empty(len(heads))
    for part, keys, displacements in index.means(heads):
        rows = keys if displacement is None else displacements
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        products = (rows @ wanted.astype(np.float32)).astype(np.float64)
        found[part] = np.clip(products / np.maximum(lengths * np.linalg.norm(wanted), 1e-8), -1, 1)
    return found


def _read(database: sqlite3.Connection) -> list[Head]:
    heads = list(map(Head._make, database.execute("SELECT * FROM prompts")))
    for head in heads[:1]:  # one row is enough to detect a file of another kind
        json.loads(head.card or "{}")
    return heads


def _stamp(path: str) -> str:
    """Returns size and modification time of a file; an empty string if it no longer exists."""
    try:
        state = os.stat(path)  # noqa: PTH116  # half the time for a hundred thousand files
    except OSError:
        return ""
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ino}"
