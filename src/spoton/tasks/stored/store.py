"""Examples on disk: an Arrow file with one input and target per row, memory-mapped and never read as a whole.

Identifies rows by number. `split` decides which rows make a split; `rows` presents them as a sequence of examples.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import mmap
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from spoton.errors import DataError
from spoton.files import atomic_save, writing
from spoton.tasks.example import Example

Purpose = Literal["split", "order", "k-shot"]
"""Purpose of an order of rows; see `spoton.tasks.splits`."""
Digests = NDArray[np.uint64]
"""`[N, 2]` the first 16 bytes of a SHA-256, which sort as its hexadecimal digits do."""

ROWS, FACTS, CODES, NUMBERS = "rows.arrow", "facts.json", "codes.npy", "numbers.npy"
_ROWS_AT_ONCE = 65_536
_BYTES_AT_ONCE = 2**26  # of a batch, far below the 2 GB that the offsets of an Arrow text can count
_SORTED_AT_ONCE = 2**18  # rows that are held while they are put back into the order asked for
_SEEN = 20_000
"""Rows to look up before releasing the mapped pages, which stay in the system's cache."""


class RowWriter:
    """Writes a store row by row.

    Args:
        folder: An existing folder.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow

        self._path = folder / ROWS
        self._schema = pyarrow.schema([("input", pyarrow.utf8()), ("target", pyarrow.utf8())])
        with writing(self._path):
            self._file = pyarrow.OSFile(str(self._path), "wb")
            self._writer = pyarrow.ipc.new_file(self._file, self._schema)
        self._inputs, self._targets, self._bytes, self._written = list[str](), list[str](), 0, 0

    def add(self, example: Example) -> None:
        """Adds a row.

        Raises:
            DataError: The text holds half of a character.
        """
        self._inputs.append(example.input)
        self._targets.append(example.target)
        self._bytes += len(example.input) + len(example.target)
        if len(self._inputs) == _ROWS_AT_ONCE or self._bytes >= _BYTES_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Writes the remaining rows."""
        if self._inputs:
            self._flush()
        with writing(self._path):
            self._writer.close()
            self._file.close()

    def _flush(self) -> None:
        import pyarrow

        try:
            columns = [pyarrow.array(texts, pyarrow.utf8()) for texts in (self._inputs, self._targets)]
        except UnicodeEncodeError:
            raise self._half_of_a_character() from None
        with writing(self._path):
            self._writer.write_batch(pyarrow.record_batch(columns, schema=self._schema))
        self._written += len(self._inputs)
        self._inputs, self._targets, self._bytes = [], [], 0

    def _half_of_a_character(self) -> DataError:
        for number, texts in enumerate(zip(self._inputs, self._targets, strict=True), self._written + 1):
            try:
                " ".join(texts).encode()
            except UnicodeEncodeError as error:
                code = ord(" ".join(texts)[error.start])
                return DataError(
                    f"Example {number} holds half of a character (U+{code:04X}), such as a cut emoji leaves. Repair "
                    "it, or remove its row."
                )
        return DataError(f"Examples {self._written + 1} and following hold text that is not Unicode.")


class RowStore:
    """A finished store.

    Args:
        folder: Holds the rows, their numbers in the files (`NUMBERS`), their facts (`FACTS`), and the codes of their
            targets where there are few.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow

        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        with (folder / ROWS).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pyarrow.ipc.open_file(pyarrow.BufferReader(pyarrow.py_buffer(self._map)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._starts = [0, *accumulate(batch.num_rows for batch in batches)]
        self._columns = [tuple(_Texts(batch.column(place)) for batch in batches) for place in (0, 1)]
        self._numbers = np.load(folder / NUMBERS, mmap_mode="r")
        self._looked_up = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type[RowStore], tuple[Path]]:
        return RowStore, (self.folder,)

    @cached_property
    def words(self) -> list[str] | None:
        """The distinct targets by code; None where there are too many."""
        words: list[str] | None = self.facts["words"]
        return words

    @cached_property
    def codes(self) -> NDArray[np.int32] | None:
        """`[N]` the code of each row's target; None where there are too many distinct ones."""
        return None if self.words is None else np.load(self.folder / CODES, mmap_mode="r")

    def parts(self, row: int) -> tuple[bytes, bytes]:
        """Returns the input and target of a row in UTF-8."""
        batch = bisect.bisect_right(self._starts, row) - 1
        place = row - self._starts[batch]
        self._looked_up += 1
        if self._looked_up % _SEEN == 0:
            self._forget()
        inputs, targets = self._columns[0][batch], self._columns[1][batch]
        return inputs.one(place), targets.one(place)

    def parts_in_order(self, rows: NDArray[np.unsignedinteger]) -> Iterator[tuple[bytes, bytes]]:
        """Yields the input and target of rows in any order, in UTF-8.

        Some hundred thousand rows at a time are read in the order of the file: in a file of gigabytes, each row of a
        random order would cost a page fault of its own.

        Args:
            rows: `[N]` row numbers.
        """
        for start in range(0, len(rows), _SORTED_AT_ONCE):
            block = rows[start : start + _SORTED_AT_ONCE].astype(np.int64)
            order = np.argsort(block, kind="stable")
            found = list(self._parts_of_sorted(block[order]))
            yield from map(found.__getitem__, np.argsort(order, kind="stable").tolist())

    def _parts_of_sorted(self, rows: NDArray[np.int64]) -> Iterator[tuple[bytes, bytes]]:
        bounds = np.searchsorted(rows, self._starts)
        for batch, (first, last) in enumerate(pairwise(bounds.tolist())):
            if first == last:
                continue
            places = rows[first:last] - self._starts[batch]
            yield from zip(*(column[batch].many(places) for column in self._columns), strict=True)
            self._forget()

    def example(self, row: int) -> Example:
        """Returns the example of a row."""
        text, target = self.parts(row)
        return Example(text.decode(), target.decode(), row=int(self._numbers[row]))

    @property
    def seed(self) -> int:
        """A seed for telling inputs apart: one whose digests exist, where any do."""
        there = sorted(self.folder.glob("digests-split-*.npy"))
        return int(there[0].stem.rpartition("-")[2]) if there else 0

    def digests(self, purpose: Purpose, seed: int) -> Digests:
        """Returns the digests that order the rows, computed once and kept.

        Args:
            purpose: `split` hashes the inputs alone, the others inputs and targets.
            seed: Seed of the order.
        """
        path = self.folder / f"digests-{purpose}-{seed}.npy"
        if not path.is_file():
            found = self._digests(purpose, seed)
            save_whole(path, lambda file: np.save(file, found))
        kept: Digests = np.load(path, mmap_mode="r")
        return kept

    def _digests(self, purpose: Purpose, seed: int) -> Digests:
        start, whole = hashlib.sha256(), purpose != "split"
        for name in (purpose, str(seed)):
            start.update(sized(name.encode()))
        found = bytearray(16 * len(self))
        for row, (text, target) in enumerate(self._all_parts()):
            digest = start.copy()
            digest.update(sized(text) + sized(target) if whole else sized(text))
            found[16 * row : 16 * row + 16] = digest.digest()[:16]
        return np.frombuffer(found, dtype=">u8").astype(np.uint64).reshape(-1, 2)

    def _all_parts(self) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(self), _SORTED_AT_ONCE):
            yield from self._parts_of_sorted(np.arange(start, min(start + _SORTED_AT_ONCE, len(self))))

    def _forget(self) -> None:
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


def save_whole(path: Path, save: Callable[[BinaryIO], None]) -> None:
    """Saves atomically what NumPy writes, through an open file, since NumPy would add a suffix to a path."""

    def into(place: Path) -> None:
        with place.open("wb") as file:
            save(file)

    atomic_save(path, into)


def sized(encoded: bytes) -> bytes:
    """Returns a part of a hash as in `sha256_of_text`: its length, then its bytes."""
    return len(encoded).to_bytes(8, "big") + encoded


class _Texts:
    """The bytes of an Arrow text column, by row or for many rows at once."""

    def __init__(self, column: Any) -> None:
        _, offsets, data = column.buffers()
        self._ends = np.frombuffer(offsets, dtype=np.int32)[column.offset :]
        self._bytes = memoryview(data) if data is not None else memoryview(b"")

    def one(self, place: int) -> bytes:
        return bytes(self._bytes[self._ends[place] : self._ends[place + 1]])

    def many(self, places: NDArray[np.int64]) -> list[bytes]:
        """Returns the texts at `[N]` places; a list of offsets is several times faster than looking each one up."""
        ends = zip(self._ends[places].tolist(), self._ends[places + 1].tolist(), strict=True)
        return [bytes(self._bytes[start:end]) for start, end in ends]
