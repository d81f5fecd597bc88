"""IBM's fork of Text Generation Inference (TGIS): a folder per prompt with plain tensors `[P, D]`.

Its prompt store is a folder; a prompt is `<store>/<prompt id>/decoder.pt` for decoder-only models. For encoder-decoder
models, `encoder.pt` precedes the encoder's input and `decoder.pt` the decoder's; spoton's prompts are the former.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch

from spoton.errors import PromptError
from spoton.exchange.foreign import ForeignPrompt
from spoton.exchange.matrix_files import only_matrix, read_pt
from spoton.files import atomic_write
from spoton.prompts.soft_prompt import SoftPrompt

_ID = re.compile(r"[\w\-]+", re.ASCII)
_ENCODER, _DECODER = "encoder.pt", "decoder.pt"


def export_tgis(prompt: SoftPrompt, folder: Path, *, is_encoder_decoder: bool) -> Path:
    """Writes one prompt for a TGIS prompt store.

    Args:
        prompt: The prompt.
        folder: `<store>/<prompt id>`.
        is_encoder_decoder: Whether the model that the prompt belongs to has an encoder.

    Returns:
        The file written.

    Raises:
        PromptError: TGIS does not accept the prompt id.
        SpotonError: The file cannot be written.
    """
    if not _ID.fullmatch(folder.name):
        raise PromptError(
            f"{folder.name!r} cannot be a prompt id in TGIS; expected letters, digits, '_' and '-'. "
            "Choose another name for the folder."
        )
    path = folder / (_ENCODER if is_encoder_decoder else _DECODER)
    content = io.BytesIO()
    torch.save(prompt.value.clone(), content)
    atomic_write(path, content.getvalue())
    return path


def read_tgis(folder: Path) -> ForeignPrompt:
    """Reads the prompt of one folder of a TGIS prompt store.

    Raises:
        PromptError: There is no prompt, or one for encoder and decoder at once, or a file cannot be used.
    """
    there = [folder / name for name in (_ENCODER, _DECODER) if (folder / name).is_file()]
    if len(there) != 1:
        raise PromptError(
            f"{folder} holds {' and '.join(path.name for path in there) or 'neither encoder.pt nor decoder.pt'}; "
            "expected one of the two. "
            + (
                "spoton has no prompts before the decoder's input."
                if there
                else "Give the folder of one prompt."
            )
        )
    return ForeignPrompt(
        only_matrix(there[0], read_pt(there[0])), {"source": f"{folder.name}/{there[0].name}"}
    )
