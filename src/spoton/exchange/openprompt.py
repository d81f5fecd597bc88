"""OpenPrompt's `SoftTemplate`: the parameter `soft_embeds` `[P, D]` in a state dict saved with `torch.save`.

OpenPrompt saves the state of a template, whose other tensor is the model's own embedding matrix
(`raw_embedding.weight`), or of a whole runner, where the template is nested next to the verbalizer. All are read with
`weights_only`. Files with a bare tensor, as several research codes write them, are also read.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch

from spoton.errors import PromptError
from spoton.exchange.foreign import ForeignPrompt
from spoton.exchange.matrix_files import only_matrix, read_pt
from spoton.files import atomic_write
from spoton.prompts.soft_prompt import SoftPrompt

_NAME = "soft_embeds"


def read_openprompt(path: Path) -> ForeignPrompt:
    """Reads a `.pt` or `.ckpt` file of OpenPrompt.

    Raises:
        PromptError: The file is missing, damaged, holds more than tensors and plain containers, or not exactly one
            prompt.
    """
    tensors = read_pt(path)
    named = {name: tensor for name, tensor in tensors.items() if name.split(".")[-1] == _NAME}
    if len(named) > 1:
        raise PromptError(
            f"{path} holds {len(named)} prompts: {', '.join(sorted(named))}. Save the state of one template alone."
        )
    return ForeignPrompt(only_matrix(path, named or tensors), {"source": path.name})


def export_openprompt(prompt: SoftPrompt, path: Path) -> Path:
    """Writes `{"soft_embeds": [P, D]}`, to be loaded with `template.load_state_dict(..., strict=False)`.

    Raises:
        SpotonError: The file cannot be written.
    """
    content = io.BytesIO()
    torch.save({_NAME: prompt.value.clone()}, content)
    atomic_write(path, content.getvalue())
    return path
