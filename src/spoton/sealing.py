"""Content with its own checksum: a SHA-256 that is written with it and checked when it is read.

For files that spoton writes for itself (checkpoints, finished parts, results of cells): one flipped bit could otherwise
become a result that was never computed. It protects against accidents, not against attackers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from spoton.parsing import parse_json

_MARK = b"\nspoton-sha256:"
_DIGITS = 64
CHECKSUM = "checksum"
"""The checksum's field in a sealed JSON document; it covers all others."""


def sealed(data: bytes) -> bytes:
    """Returns bytes followed by their checksum."""
    return data + _MARK + hashlib.sha256(data).hexdigest().encode()


def unsealed(data: bytes) -> bytes:
    """Returns the bytes that `sealed` was given.

    Raises:
        ValueError: The content does not match its checksum, or has none.
    """
    content, found = data[: -len(_MARK) - _DIGITS], data[-len(_MARK) - _DIGITS :]
    if not found.startswith(_MARK):
        raise ValueError("it has no checksum at its end, so it is cut short or of an earlier version")
    if found[len(_MARK) :] != hashlib.sha256(content).hexdigest().encode():
        raise ValueError("its content does not match its checksum")
    return content


def sealed_json(document: dict[str, Any]) -> bytes:
    """Returns a document as readable JSON with its checksum as the last field."""
    return (
        json.dumps(document | {CHECKSUM: _checksum(document)}, indent=1, ensure_ascii=False) + "\n"
    ).encode("utf-8", "surrogatepass")


def unsealed_json(data: bytes, *, required: bool = False) -> dict[str, Any]:
    """Returns the document that `sealed_json` was given.

    Args:
        data: The JSON.
        required: Whether to refuse a document without a checksum; earlier versions wrote none.

    Raises:
        ValueError: It is not a JSON object, does not match its checksum, or lacks a required one.
    """
    found = parse_json(data.decode("utf-8", "surrogatepass"))
    if not isinstance(found, dict):
        raise ValueError(f"it holds a JSON {type(found).__name__}, expected an object")
    if CHECKSUM not in found:
        if required:
            raise ValueError("it has no checksum")
        return found
    if found.pop(CHECKSUM) != _checksum(found):
        raise ValueError("its content does not match its checksum")
    return found


def _checksum(document: dict[str, Any]) -> str:
    # As a reader will see it: tuples become lists, and keys become text.
    read = json.loads(json.dumps(document))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
