"""Cells of long experiments: each is a JSON file, runs once in the first process that takes it, and resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Says whether to run a cell here: it has no result, and no living process works on it.

    The lock ends with its process, unlike a file. Once the result is written, the checkpoint next to it is removed.

    Args:
        path: Path of the result, which the caller writes.
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not path.exists()
        if path.exists():
            path.with_suffix(".checkpoint").unlink(missing_ok=True)
    finally:
        lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
