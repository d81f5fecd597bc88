"""What remains when a command fails: a message for the user, and a report for the developers.

Errors that a user can correct say what to do. This module is for the errors that no command expects: a bug in spoton,
or in a library that it uses.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib.metadata
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

from spoton.errors import SpotonError
from spoton.files import cache_folder
from spoton.reading import reason

USER_ERROR = 2
FAULT = 1

_ENVIRONMENT = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG,
        errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.EINVAL,
    }
)  # fmt: skip
"""Errors of the system that a user can correct: permissions, space, names."""

_PACKAGES = ("spoton", "torch", "transformers", "safetensors", "numpy", "typer", "rich")


def describe(error: Exception) -> tuple[str, int]:
    """Returns the message for an error that no command expects, and the exit code.

    Returns:
        The message, and 2 if the user can correct it (files, permissions, space), else 1.
    """
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        place = f" {error.filename}" if error.filename else " a file"
        return (
            f"Cannot use{place}: {reason(error)}. Check the path, its permissions and the space on its disk.",
            USER_ERROR,
        )
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        what = (
            "There is not enough memory. Use a smaller --batch-size, --max-input-tokens or model, or give the process "
            "more memory."
        )
    else:
        words = str(error).strip().splitlines()
        shown = f": {words[0][:300]}" if words else ""
        what = f"spoton failed where it should not, with {type(error).__name__}{shown}."
    report = _write_report(error)
    kept = f" The report is in {report}; please send it to the authors." if report else ""
    return f"{what}{kept} `spoton --debug ...` shows where it happened.", FAULT


def _write_report(error: Exception) -> Path | None:
    """Writes a file with the traceback, versions and command; returns None if no file can be written."""
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    versions = []
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    text = "\n".join(
        (
            f"{now.isoformat(timespec='seconds')}  python {platform.python_version()}  {platform.platform()}",
            ", ".join(versions),
            f"command: {sys.argv!r}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    for folder in (_reports, _temporary):
        with contextlib.suppress(OSError, SpotonError):
            path = folder() / name
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return path
    return None


def _reports() -> Path:
    folder = cache_folder() / "reports"
    folder.mkdir(exist_ok=True)
    return folder


def _temporary() -> Path:
    folder = Path(tempfile.gettempdir()) / f"spoton-reports-{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder
