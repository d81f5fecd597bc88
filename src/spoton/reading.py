"""Opens untrusted files: regular files only, read once, up to a size.

Every problem with a file is an `OSError` whose `strerror` describes it, so a caller catches one type and adds only what
the file was meant to be. Pipes and devices are refused before a byte is read, since they may never end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a pipe, not a regular file",
    stat.S_IFSOCK: "it is a socket, not a regular file",
    stat.S_IFCHR: "it is a device, not a regular file",
    stat.S_IFBLK: "it is a device, not a regular file",
}


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Yields a regular file, open for reading. All reads see the same file, even if another file takes its name.

    Raises:
        OSError: It does not exist, is not readable, or is a folder, pipe, socket or device.
    """
    try:
        # Without O_NONBLOCK, opening a pipe blocks until a process writes into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null byte in the path
        raise OSError(errno.EINVAL, "no file can have such a name", str(path)) from error
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
        raise OSError(number, _KINDS.get(kind, "it is not a regular file"), str(path))
    with os.fdopen(descriptor, "rb") as file:
        yield file


def is_file(name: Path | str) -> bool:
    """Returns whether a name that a user gives is that of a regular file; a text too long for a path is not one.

    Raises:
        OSError: The folders of the path are not readable.
    """
    try:
        return Path(name).is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def read_bytes(path: Path, *, most: int | None = None) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: The file.
        most: Largest size in bytes.

    Raises:
        OSError: See `opened`; or it is larger than `most`.
    """
    with opened(path) as file:
        size = size_of(file)
        if most is not None and size <= most:
            data = file.read(most + 1)  # files in /proc report no size, and a file may grow
            size = max(size, len(data))
        elif most is None:
            data = file.read()
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG, f"it has {_megabytes(size)}, expected at most {_megabytes(most)}", str(path)
            )
    return data


def read_text(path: Path, *, most: int | None = None, encoding: str = "utf-8") -> str:
    """Returns the text of a regular file.

    Raises:
        OSError: See `read_bytes`.
        UnicodeError: The content is not text in that encoding.
    """
    return read_bytes(path, most=most).decode(encoding)


def size_of(file: BufferedReader) -> int:
    """Returns the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def reason(error: OSError) -> str:
    """Returns what went wrong with a file, as words that continue a sentence."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
