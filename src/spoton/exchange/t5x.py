"""Prompts written by others: reading their files into a `SoftPrompt`.

The NumPy arrays that T5X prompt tuning (google-research/prompt-tuning) publishes, and tensors saved with PyTorch.
Nothing here unpickles, so a file from a stranger cannot run code.
"""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from spoton.errors import PromptError
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt


def load_t5x(path: Path | str) -> Tensor:
    """Read a prompt published by T5X prompt tuning.

    Args:
        path: A `.npy` file with one floating point array `[P, D]`.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: The file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    array = _read_npy(path)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
        raise PromptError(
            f"{path} holds an array of shape {list(array.shape)} and type {array.dtype}; expected floating "
            "point numbers [P, D]. Save the prompt alone, as float32."
        )
    value = torch.from_numpy(array.astype(np.float32))
    if not value.isfinite().all():
        raise PromptError(f"{path} holds numbers that are not finite. Export the prompt again.")
    return value


def import_npy(
    path: Path | str, *, name: str, task: str, model: str, model_fingerprint: str, **card: Any
) -> SoftPrompt:
    """Read a T5X prompt and give it a card, which its own format lacks.

    Args:
        path: A `.npy` file with one array `[P, D]`.
        name: What to call the prompt.
        task: The task it was tuned on.
        model: Name of the frozen model it was tuned with.
        model_fingerprint: Fingerprint of that model.
        **card: Other fields of `Card`; `source` is the file's name if not given.

    Returns:
        The prompt, without a key: T5X publishes final checkpoints only.

    Raises:
        PromptError: The file or a card field cannot be used.
    """
    path = Path(path)
    fields = {"source": path.name, **card}
    fields |= {"name": name, "task": task, "model": model, "model_fingerprint": model_fingerprint}
    value = load_t5x(path)
    try:
        return SoftPrompt(value, Card.model_validate(fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise PromptError(f"The card's {field} is {first['input']!r}: {first['msg']}. Correct it.") from error


def _read_npy(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
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


def load_pt(path: Path | str) -> Tensor:
    """Read a prompt that was saved with `torch.save`: a matrix, or a dict with exactly one.

    Unpickles nothing but tensors and plain containers (`weights_only`).

    Args:
        path: A `.pt` file.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: The file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise PromptError(f"There is no file {path}. Check the path.") from error
    except OSError as error:
        raise PromptError(f"Cannot read {path}: {error.strerror}. Give the path of a .pt file.") from error
    except Exception as error:  # a damaged archive or pickle raises whatever it happens to break
        raise PromptError(
            # Not torch's own words, which advise to set weights_only=False and so to run whatever is in the file.
            f"{path} is damaged, or holds more than tensors, which is refused since it could run code "
            f"({type(error).__name__}). Save the prompt's tensor alone."
        ) from error
    return _one_matrix(path, found)


def load_prompt_matrix(path: Path) -> Tensor:
    """Read a prompt's matrix from `.npy`, `.pt`, or `.safetensors` (spoton's own, or PEFT's adapter file).

    Of a file of spoton's the key is read if there is one, since prompts are compared by it.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: The file is missing, damaged, or holds anything else.
    """
    if path.suffix == ".npy":
        return load_t5x(path)
    if path.suffix == ".pt":
        return load_pt(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise PromptError(f"There is no file {path}. Check the path.") from error
    except (OSError, SafetensorError) as error:
        raise PromptError(f"{path} is damaged or not a safetensors file: {error}. Fetch it again.") from error
    return _one_matrix(path, tensors.get("key", tensors.get("value", tensors)))


def _one_matrix(path: Path, found: object) -> Tensor:
    tensors = list(found.values()) if isinstance(found, dict) else [found]
    matrices = [
        one for one in tensors if isinstance(one, Tensor) and one.dim() == 2 and one.is_floating_point()
    ]
    if len(matrices) != 1 or 0 in matrices[0].shape:
        raise PromptError(
            f"{path} holds {len(matrices)} matrices of floating point numbers; expected one, [P, D]. "
            "Save the prompt alone."
        )
    value = matrices[0].detach().float().contiguous()
    if not value.isfinite().all():
        raise PromptError(f"{path} holds numbers that are not finite. Export the prompt again.")
    return value
