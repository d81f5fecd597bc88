"""Reads files of other systems that hold one matrix: NumPy arrays, tensors saved by PyTorch, safetensors.

Nothing here unpickles objects, so a file from a stranger cannot run code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from spoton.errors import PromptError


def read_npy(path: Path | str) -> Tensor:
    """Reads a NumPy array file of any name.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: The file is missing, damaged, or holds anything but one finite matrix.
    """
    path = Path(path)
    array = _read_array(path)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
        raise PromptError(
            f"{path} holds an array of shape {list(array.shape)} and type {array.dtype}; expected floating "
            "point numbers [P, D]. Save the prompt alone, as float32."
        )
    return _finite(path, torch.from_numpy(array.astype(np.float32)))


def read_pt(path: Path | str) -> dict[str, Tensor]:
    """Reads tensors `[...]` saved with `torch.save`, by name; a bare tensor has the name "".

    Unpickles only tensors and plain containers (`weights_only`).

    Raises:
        PromptError: The file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise PromptError(f"There is no file {path}. Check the path.") from error
    except OSError as error:
        raise PromptError(f"Cannot read {path}: {error.strerror}. Give the path of a .pt file.") from error
    except Exception as error:  # a damaged archive or pickle can raise any error
        raise PromptError(
            # Not torch's own message, which advises weights_only=False, and so running whatever is in the file.
            f"{path} is damaged, or holds more than tensors, which is refused since it could run code "
            f"({type(error).__name__}). Save the prompt's tensor alone."
        ) from error
    return _named_tensors(loaded)


def read_safetensors(path: Path | str) -> dict[str, Tensor]:
    """Reads every tensor `[...]` of a safetensors file, by name.

    Raises:
        PromptError: The file is missing or damaged.
    """
    path = Path(path)
    try:
        return dict(safetensors.torch.load_file(path))
    except FileNotFoundError as error:
        raise PromptError(f"There is no file {path}. Check the path.") from error
    except (OSError, SafetensorError) as error:
        raise PromptError(f"{path} is damaged or not a safetensors file: {error}. Fetch it again.") from error


def load_prompt_matrix(path: Path) -> Tensor:
    """Reads a prompt's matrix from `.npy`, `.pt`, or `.safetensors` (spoton's own, or PEFT's adapter file).

    From a spoton file it reads the key if there is one, since prompts are compared by their keys.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: The file is missing, damaged, or holds anything else.
    """
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".pt":
        return only_matrix(path, read_pt(path))
    tensors = read_safetensors(path)
    own = tensors.get("key", tensors.get("value"))
    return only_matrix(path, tensors if own is None else {"": own})


def only_matrix(path: Path, tensors: dict[str, Tensor]) -> Tensor:
    """Returns the one matrix of floating point numbers among tensors.

    Args:
        path: Their file, for the message.
        tensors: Tensors by name.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: There is no matrix, or more than one, or it is not finite.
    """
    matrices = [tensor for tensor in tensors.values() if tensor.dim() == 2 and tensor.is_floating_point()]
    if len(matrices) != 1 or 0 in matrices[0].shape:
        raise PromptError(
            f"{path} holds {len(matrices)} matrices of floating point numbers; expected one, [P, D]. "
            "Save the prompt alone."
        )
    return _finite(path, matrices[0].detach().float().contiguous())


def _named_tensors(loaded: object, name: str = "") -> dict[str, Tensor]:
    """Returns the tensors of nested dictionaries by dotted name; anything else is left out."""
    if isinstance(loaded, Tensor):
        return {name: loaded}
    tensors: dict[str, Tensor] = {}
    if isinstance(loaded, dict):
        for key, part in loaded.items():
            tensors |= _named_tensors(part, f"{name}.{key}" if name else str(key))
    return tensors


def _finite(path: Path, value: Tensor) -> Tensor:
    if not value.isfinite().all():
        raise PromptError(f"{path} holds numbers that are not finite. Export the prompt again.")
    return value


def _read_array(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise PromptError(f"There is no file {path}. Check the path.") from error
    except OSError as error:
        raise PromptError(f"Cannot read {path}: {error.strerror}. Give the path of a .npy file.") from error
    except (ValueError, MemoryError) as error:  # MemoryError: a damaged header can claim any shape
        raise PromptError(
            f"{path} is damaged or not a NumPy array file: {error}. "
            "Expected a .npy file with one array [P, D]; fetch it again."
        ) from error
