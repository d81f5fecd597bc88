"""Locks on outputs: one process writes an output at a time, and temporary files of live processes are never removed.

The system releases the lock of a process however it dies, so a lock that can be taken has no owner. Where such locks do
not exist (Windows, some network disks), outputs are not protected, and leftovers are recognised by age.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spoton.errors import SpotonError

_PREFIX = ".spoton-"
_SUFFIXES = (".tmp", ".lock")
_DAY = 24 * 3600


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from writing the same output inside the block. Creates its folder if it is missing.

    Raises:
        SpotonError: Another process is writing it, or its folder cannot be written.
    """
    place = path.resolve()
    name = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
    lock = FileLock(place.parent / f"{_PREFIX}{name}.lock", timeout=0)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place.parent)
        lock.acquire()
    except Timeout as error:
        raise SpotonError(
            f"Another process is writing {path}. Wait until it ends, stop it, or choose another place."
        ) from error
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise SpotonError(
            f"Cannot write {path}: {words}. Choose a path in a folder you can write to."
        ) from error
    try:
        yield
    finally:
        # Before the release: a process that has opened the file sees that its name is gone, and opens it again.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def scratch_file(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yields a new file with a hidden name, and its descriptor. Removes it at the end unless it was renamed.

    Raises:
        OSError: The folder cannot be written.
    """
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}.tmp"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if _held(descriptor):
            break
        os.close(descriptor)  # another process removed it before it was locked
    try:
        yield path, descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yields a new folder with a hidden name. Removes it with its content at the end.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}.tmp"
        path.mkdir()
        descriptor = _open_folder(path)
        if descriptor is None or _held(descriptor):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes the temporary files and locks that dead processes left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIXES) and not entry.is_symlink():
                with contextlib.suppress(OSError):
                    _remove_if_dead(Path(entry.path), is_folder=entry.is_dir())


def _remove_if_dead(path: Path, *, is_folder: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not _is_nobodys(descriptor):
            return
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_nobodys(descriptor: int) -> bool:
    try:
        return _flock(descriptor)
    except OSError:  # locks do not exist here; no write takes a day
        return time.time() - os.fstat(descriptor).st_mtime > _DAY


def _held(descriptor: int) -> bool:
    """Locks a new file or folder; returns False if another process has removed it."""
    try:
        return _flock(descriptor) and os.fstat(descriptor).st_nlink > 0
    except OSError:
        return True


def _open_folder(path: Path) -> int | None:
    """Returns a descriptor of a folder; None where folders cannot be opened (Windows)."""
    with contextlib.suppress(PermissionError):
        return os.open(path, os.O_RDONLY)
    return None


def _flock(descriptor: int) -> bool:
    """Takes the lock of an open file; returns False if another process has it.

    Raises:
        OSError: Such locks do not exist here.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
