"""The hash of a task whose splits are rows of a store: equal to `Task.data_hash`, kept next to the store."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from spoton.files import atomic_write
from spoton.tasks.example import Example
from spoton.tasks.stored.rows import StoredRows
from spoton.tasks.stored.store import sized


def hash_of_stored(*splits: Sequence[Example]) -> str | None:
    """Returns the hash of a task's three splits; None if any is not from a store.

    Hashing millions of rows takes a minute, so the hash is kept in the store's folder under its rows.
    """
    stored = [split for split in splits if isinstance(split, StoredRows)]
    if len(stored) < len(splits):
        return None
    named = hashlib.sha256()
    for split in stored:
        named.update(str(split.store.folder).encode())
        named.update(split.rows.tobytes())
    path = stored[0].store.folder / f"hash-{named.hexdigest()[:16]}"
    if not path.is_file():
        atomic_write(path, _hash(stored).encode())
    return path.read_text(encoding="utf-8")


def _hash(splits: Sequence[StoredRows]) -> str:
    digest, size = hashlib.sha256(), struct.Struct(">Q").pack
    for name, split in zip(("train", "validation", "test"), splits, strict=True):
        digest.update(sized(name.encode()) + sized(str(len(split)).encode()))
        for text, target in split.store.parts_in_order(split.rows):
            digest.update(
                size(len(text)) + text + size(len(target)) + target
            )  # `sized`, without two calls a row
    return digest.hexdigest()[:16]
