"""Checkpoint files: tensors and plain values in one file that is either intact or refused.

A safetensors file detects truncation, but not a flipped bit in a tensor.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from spoton.files import atomic_write, sha256_of_file
from spoton.reading import read_bytes
from spoton.sealing import sealed, unsealed

_PLAIN = "plain"


def write_sealed(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Writes tensors `[...]` by name and plain values, atomically.

    Raises:
        SpotonError: The file cannot be written.
    """
    # Stored as a byte tensor: the format's metadata can be read only from a path, not from bytes already checked.
    text = torch.frombuffer(bytearray(json.dumps(plain).encode()), dtype=torch.uint8)
    data = {name: tensor.contiguous() for name, tensor in tensors.items()} | {_PLAIN: text}
    atomic_write(path, sealed(safetensors.torch.save(data)))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors `[...]` and values that `write_sealed` wrote.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged, or `write_sealed` did not write it.
    """
    try:
        tensors = safetensors.torch.load(unsealed(read_bytes(path)))
        plain: dict[str, Any] = json.loads(bytes(tensors.pop(_PLAIN).tolist()))
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"it does not hold what it should ({error})") from error
    return tensors, plain


def discard_if_damaged(path: Path) -> None:
    """Removes a damaged file of `write_sealed`, so that a run that resumes automatically starts over.

    Raises:
        OSError: The file cannot be read or removed.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            unsealed(read_bytes(path))
        except ValueError:
            path.unlink()


def read_hashed(path: Path, sha256: str) -> dict[str, Tensor]:
    """Returns the tensors `[...]` of a safetensors file whose hash is kept elsewhere; for files too big to hold twice.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file does not have that hash.
    """
    if sha256_of_file(path) != sha256:
        raise ValueError(f"the content of {path.name} does not match its checksum")
    return safetensors.torch.load_file(path)
