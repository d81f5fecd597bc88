"""Tensors and plain values in one file that is either whole or refused: what checkpoints are made of.

A safetensors file notices that it is cut short, but not that a bit of a tensor has flipped.
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
    """Writes tensors and plain values, atomically.

    Raises:
        SpotonError: The file cannot be written.
    """
    # As a tensor of bytes: metadata of the format could be read from a path only, not from bytes that were checked.
    text = torch.frombuffer(bytearray(json.dumps(plain).encode()), dtype=torch.uint8)
    data = {name: tensor.contiguous() for name, tensor in tensors.items()} | {_PLAIN: text}
    atomic_write(path, sealed(safetensors.torch.save(data)))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns what `write_sealed` was given.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or `write_sealed` did not write it.
    """
    try:
        tensors = safetensors.torch.load(unsealed(read_bytes(path)))
        plain: dict[str, Any] = json.loads(bytes(tensors.pop(_PLAIN).tolist()))
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"it does not hold what it should ({error})") from error
    return tensors, plain


def discard_if_damaged(path: Path) -> None:
    """Removes a file of `write_sealed` that is not whole, so that a run which resumes by itself starts anew.

    Raises:
        OSError: The file cannot be read or removed.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            unsealed(read_bytes(path))
        except ValueError:
            path.unlink()


def read_hashed(path: Path, sha256: str) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file whose hash is kept elsewhere; for what is too large to be in memory
    twice.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not the file with that hash.
    """
    if sha256_of_file(path) != sha256:
        raise ValueError(f"the content of {path.name} does not match its checksum")
    return safetensors.torch.load_file(path)
