"""Files that are either whole or absent: atomic writes, content hashes, and the cache folder.

Deals in bytes and paths only, not in prompts, tasks or models. `locks.py` decides who may write when, and removes what
dead writers left.
"""

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from spoton.errors import SpotonError
from spoton.locks import scratch_file, sweep
from spoton.reading import opened, reason

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def cache_folder() -> Path:
    """Returns the folder for what can be fetched or computed again. Creates it if it is missing.

    Returns:
        `$SPOTON_CACHE` if set, else the platform's user cache folder (`~/.cache/spoton` on Linux); for a user without
        a home, a private folder among the temporary files.

    Raises:
        SpotonError: The folder cannot be created.
    """
    chosen = os.environ.get("SPOTON_CACHE")
    if chosen:
        folder = expanded(chosen)
    elif has_home():
        folder = platformdirs.user_cache_path("spoton")
    else:
        folder = Path(tempfile.gettempdir()) / f"spoton-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpotonError(
            f"Cannot create the cache folder {folder}: {_reason(error)}. "
            "Set SPOTON_CACHE to a folder you can write to."
        ) from error
    return folder


def has_home() -> bool:
    """Returns whether this user has a home folder: a container may run under a number that no user has."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def expanded(path: str) -> Path:
    """Returns a path with `~` expanded; unchanged for a user who has no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def atomic_write(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file atomically: no reader and no crash ever leaves half of it visible.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the final name.
    Missing parent folders are created. An interrupted write (a full disk, Ctrl-C) removes its temporary file. Only a
    killed process can leave one behind, and the next write into that folder removes it.

    Args:
        path: Path of the file.
        data: Its whole content.
        overwrite: Whether to replace an existing file. With False, exactly one of many processes that write the
            same path at once succeeds.

    Raises:
        FileExistsError: `path` exists and `overwrite` is False.
        SpotonError: The folder is not writable, the disk is full, or `path` is a folder or a device. An existing
            file stays untouched.
    """
    with writing(path):
        _prepare(path)
        with scratch_file(path.parent) as (temporary, descriptor):
            _write_through(descriptor, data)
            taken = not _publish(temporary, path, overwrite)
        _sync_folder(path.parent)
    if taken:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def atomic_save(path: Path, save: Callable[[Path], None]) -> None:
    """Writes a file atomically through `save`, for content that should not be in memory twice, such as weights.

    Args:
        path: Path of the file; an existing file is replaced.
        save: Writes the whole content to the path it is given, in the same folder.

    Raises:
        SpotonError: As in `atomic_write`.
    """
    with writing(path):
        _prepare(path)
        with scratch_file(path.parent) as (temporary, _):
            save(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        _sync_folder(path.parent)


def let_others_read(folder: Path) -> None:
    """Gives the weight files of a folder the permissions of any new file.

    safetensors (0.8) makes files that only their owner may read, which a server under another user cannot load.

    Raises:
        OSError: The folder cannot be written.
    """
    with scratch_file(folder) as (_, descriptor):
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def require_writable(path: Path) -> None:
    """Checks that a file can be written, before hours of work rather than after.

    Missing parent folders are created; the file itself is not touched.

    Raises:
        SpotonError: As in `atomic_write`.
    """
    with writing(path):
        _prepare(path)
        with scratch_file(path.parent) as (_, descriptor):
            _write_through(descriptor, b"")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns system errors raised inside the block, while a file or folder is written, into errors with a next step.

    Raises:
        SpotonError: The system refuses: no space, no permission, a read-only disk.
    """
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error
    except Exception as error:
        # safetensors and tokenizers are written in Rust, and report a full disk with their own exceptions.
        number = _RUST_OS_ERROR.search(str(error))
        if number is None:
            raise
        raise _cannot_write(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, 64 hex digits. Reads in pieces, so size does not matter."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_text(parts: Iterable[str]) -> str:
    """Returns the SHA-256 of a sequence of strings, 64 hex digits.

    Each part is preceded by its length, so `["ab", "c"]` and `["a", "bc"]` hash differently.
    """
    digest = hashlib.sha256()
    for part in parts:
        # Text read from JSON may hold lone surrogates, which strict UTF-8 refuses.
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _prepare(path: Path) -> None:
    """Creates the folder of `path`, removes leftovers of dead writers, and refuses a path that is not a file."""
    if path.exists() and not path.is_file():  # a rename would replace, say, /dev/null with a file
        raise SpotonError(f"Cannot write {path}: it is not a regular file. Choose the path of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)


def _write_through(descriptor: int, data: bytes) -> None:
    """Writes into an open file, and returns once `data` is on the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _publish(temporary: Path, path: Path, overwrite: bool) -> bool:
    """Gives a finished file its name; returns False if the name is taken and may not be overwritten."""
    if overwrite:
        temporary.replace(path)
        return True
    try:
        path.hardlink_to(temporary)  # checks and links in one step: a check before a rename would be a race
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _publish_by_claim(temporary, path)
    return True


def _publish_by_claim(temporary: Path, path: Path) -> bool:
    """Publishes where hard links do not exist (exFAT, some network disks): an empty file claims the name."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        temporary.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _sync_folder(folder: Path) -> None:
    """Makes a new name in `folder` survive a power cut, where the system allows it (Windows does not).

    A refusal is not an error: the file is already whole and in place.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> SpotonError:
    return SpotonError(f"Cannot write {path}: {_reason(error)}. {_next_step(error)}")


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError):  # from creating a folder
        return f"{error.filename} is a file, not a folder"
    return reason(error)


def _next_step(error: OSError) -> str:
    if error.errno in _NO_SPACE:
        return "Free some space, or choose a path on another disk."
    return "Choose a path in a folder you can write to."
