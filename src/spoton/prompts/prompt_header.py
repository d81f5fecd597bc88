"""The header of a safetensors file, read as bytes: its tensors, and the text of a card next to them.

The library of the format opens a path, and does not return the metadata of bytes that are already in memory. But
reading a file twice may read two files, if another process replaces it in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from spoton.parsing import MalformedError, parse_json

LENGTH_BYTES = 8
"""Length of the number before the head: the head's size in bytes, little-endian."""

LARGEST = 4 * 2**20
"""Size of the largest head that is read, in bytes; that of a prompt takes some kilobytes."""


@dataclass(frozen=True)
class TensorHead:
    """A tensor's header entry, known without reading the tensor.

    Attributes:
        dtype: As the format writes it, such as `F32`.
        shape: Its shape.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FileHead:
    """The header of a safetensors file.

    Attributes:
        tensors: By name.
        metadata: Texts by name.
    """

    tensors: dict[str, TensorHead]
    metadata: dict[str, str]


def read_head(file: BinaryIO, size: int) -> FileHead:
    """Reads the head of an open file.

    Args:
        file: The file, at its start.
        size: Bytes of the whole file.

    Raises:
        ValueError: It is not a safetensors file, is truncated, or its head is too large.
        OSError: The file cannot be read.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    rest = size - LENGTH_BYTES
    if rest <= 0 or length > rest:
        raise ValueError("it is cut short in its header, or is not a safetensors file")
    if length > LARGEST:
        raise ValueError(f"its card takes {length / 1e6:,.1f} MB, expected at most {LARGEST / 1e6:.1f} MB")
    try:
        found = parse_json(file.read(length))
    except MalformedError as error:
        raise ValueError(f"its header is not JSON: {error}") from error
    try:
        metadata = {str(name): str(text) for name, text in found.pop("__metadata__", {}).items()}
        tensors = {name: _tensor(value) for name, value in found.items()}
        end = max((value["data_offsets"][1] for value in found.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"its header is not that of a safetensors file ({error!r})") from error
    if end != rest - length:
        raise ValueError(f"it has {rest - length} bytes of tensors, expected {end}")
    return FileHead(tensors, metadata)


def _tensor(found: dict[str, Any]) -> TensorHead:
    return TensorHead(str(found["dtype"]), tuple(int(size) for size in found["shape"]))
