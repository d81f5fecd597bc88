"""Places of libraries: paths and URLs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOCAL = ("file", "local")


def is_url(place: object) -> bool:
    """Returns whether a library's place is a URL rather than a path."""
    return isinstance(place, str) and "://" in place


def local_folder(place: Path | str) -> Path | None:
    """Returns the folder of a path or a `file://` URL; None for a URL of another kind."""
    if not is_url(place):
        return Path(place)
    parts = urlsplit(str(place))
    return Path(unquote(parts.netloc + parts.path)) if parts.scheme in _LOCAL else None
