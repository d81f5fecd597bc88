"""T5X prompt tuning (google-research/prompt-tuning): NumPy arrays `[P, D]`.

It publishes prompts as `.npy`, and writes its checkpoints as
`numpy_checkpoints/checkpoint_{step}/encoder.prompt.prompt.prompt`: the same content without a suffix.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from spoton.exchange.foreign import ForeignPrompt
from spoton.exchange.matrix_files import read_npy
from spoton.files import atomic_write
from spoton.prompts.soft_prompt import SoftPrompt


def load_t5x(path: Path | str) -> Tensor:
    """Reads a prompt of T5X prompt tuning.

    Args:
        path: A NumPy array file with one floating point array `[P, D]`; the name needs no suffix.

    Returns:
        `[P, D]` float32.

    Raises:
        PromptError: The file is missing, damaged, or holds anything else.
    """
    return read_npy(path)


def import_npy(
    path: Path | str, *, name: str, task: str, model: str, model_fingerprint: str, **card: Any
) -> SoftPrompt:
    """Reads a T5X prompt and gives it a card, which its own format lacks.

    Args:
        path: A NumPy array file with one array `[P, D]`.
        name: Name of the prompt.
        task: The task it was tuned on.
        model: Name of the frozen model it was tuned with.
        model_fingerprint: Fingerprint of that model.
        **card: Other fields of `Card`; `source` is the file's name if not given.

    Returns:
        The prompt, without a key: T5X publishes final checkpoints only.

    Raises:
        PromptError: The file or a card field cannot be used.
    """
    foreign = ForeignPrompt(load_t5x(path), {"source": Path(path).name})
    return foreign.to_prompt(name=name, task=task, model=model, model_fingerprint=model_fingerprint, **card)


def export_t5x(prompt: SoftPrompt, path: Path) -> Path:
    """Writes the value as a float32 NumPy array `[P, D]`, under exactly the given name.

    Raises:
        SpotonError: The file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, prompt.value.numpy(), allow_pickle=False)
    atomic_write(path, content.getvalue())
    return path
