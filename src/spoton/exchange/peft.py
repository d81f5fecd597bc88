"""Hugging Face PEFT: an adapter folder of type `PROMPT_TUNING`.

The tensor `prompt_embeddings` has P rows for each transformer submodule; of the 2 P rows of an encoder-decoder model,
PEFT uses the first P. The initialization is always written as `RANDOM`: with `TEXT`, PEFT needs a tokenizer even to
load. The card is stored in the metadata of the weight file, which PEFT ignores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spoton.errors import ModelError, PromptError
from spoton.exchange.foreign import ForeignPrompt
from spoton.exchange.matrix_files import read_pt, read_safetensors
from spoton.files import atomic_write
from spoton.models.frozen import FrozenModel
from spoton.parsing import parse_json
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.reading import read_text, reason

_CONFIG, _WEIGHTS, _OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_TENSOR = "prompt_embeddings"
_TYPE = "PROMPT_TUNING"


def export_peft(prompt: SoftPrompt, model: FrozenModel, folder: Path) -> Path:
    """Writes an adapter folder.

    Args:
        prompt: The prompt.
        model: Its frozen model, whose shape the adapter's configuration states.
        folder: Folder for `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        The folder.

    Raises:
        PromptError: The prompt belongs to another model.
        ModelError: PEFT would read the text behind the prompt wrongly.
        SpotonError: A file cannot be written.
    """
    prompt.require_model(model.fingerprints, model.name)
    if model.encoder_scale != 1:
        raise ModelError(
            f"The encoder of {model.name} scales its tokens and not embeddings that it is given, which is all that "
            "PEFT gives it: the text behind the prompt would be read wrongly."
        )
    submodules = 2 if model.is_encoder_decoder else 1
    config = model.network.config.get_text_config()
    adapter = {
        "auto_mapping": None,
        "base_model_name_or_path": str(model.network.config.name_or_path or model.name),
        "inference_mode": True,
        "modules_to_save": None,
        # PEFT reads them for prefixes alone. A recurrent model has no heads.
        "num_attention_heads": int(getattr(config, "num_attention_heads", None) or 1),
        "num_layers": int(config.num_hidden_layers),
        "num_transformer_submodules": submodules,
        "num_virtual_tokens": prompt.length,
        "peft_type": _TYPE,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": None,
        "task_type": "SEQ_2_SEQ_LM" if model.is_encoder_decoder else "CAUSAL_LM",
        "token_dim": prompt.dim,
        "tokenizer_name_or_path": None,
    }
    tensors = {_TENSOR: prompt.value.repeat(submodules, 1)}
    metadata = {"format": "pt", "spoton": prompt.card.model_dump_json()}
    atomic_write(folder / _WEIGHTS, safetensors.torch.save(tensors, metadata=metadata))
    atomic_write(folder / _CONFIG, (json.dumps(adapter, indent=2, sort_keys=True) + "\n").encode())
    return folder


def read_peft(folder: Path) -> ForeignPrompt:
    """Reads an adapter folder that PEFT or spoton wrote.

    Returns:
        The first P rows, and the whole card for a folder that spoton exported, else the base model's name.

    Raises:
        PromptError: A file is missing or damaged, the adapter is of another type, or its shapes disagree.
    """
    config = _read_config(folder / _CONFIG)
    if config.get("peft_type") != _TYPE:
        raise PromptError(
            f"{folder} holds an adapter of type {config.get('peft_type')!r}; expected {_TYPE!r}. "
            "Only prompt tuning leaves a soft prompt that can be put before any text."
        )
    weights = folder / _WEIGHTS
    old = folder / _OLD_WEIGHTS
    tensors = read_pt(old) if old.is_file() and not weights.is_file() else read_safetensors(weights)
    value = _first_rows(folder, config, tensors.get(_TENSOR))
    facts: dict[str, Any] = {"source": f"peft:{folder.resolve().name}"}
    if config.get("base_model_name_or_path"):
        facts["model"] = str(config["base_model_name_or_path"])
    return ForeignPrompt(value, _card_of(weights) or facts)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(read_text(path))
    except FileNotFoundError as error:
        raise PromptError(
            f"There is no {path}. Give the folder that PEFT's `save_pretrained` wrote."
        ) from error
    except OSError as error:
        raise PromptError(f"Cannot read {path}: {reason(error)}. Give the folder of an adapter.") from error
    except ValueError as error:
        raise PromptError(f"{path} is not JSON: {error}. Save the adapter again.") from error
    if not isinstance(config, dict):
        raise PromptError(f"{path} holds no JSON object. Save the adapter again.")
    return config


def _first_rows(folder: Path, config: dict[str, Any], value: Tensor | None) -> Tensor:
    """Returns the P rows that PEFT uses, checked against the configuration."""
    length, dim = config.get("num_virtual_tokens"), config.get("token_dim")
    submodules = config.get("num_transformer_submodules") or 1
    if not isinstance(length, int) or not isinstance(submodules, int) or length < 1:
        raise PromptError(
            f"{folder / _CONFIG} says num_virtual_tokens {length!r} and num_transformer_submodules {submodules!r}; "
            "expected whole numbers. Save the adapter again."
        )
    shape = None if value is None else list(value.shape)
    if value is None or shape != [length * submodules, dim] or not value.is_floating_point():
        raise PromptError(
            f"{folder} holds {_TENSOR} of shape {shape}; its configuration says {[length * submodules, dim]}. "
            "Save the adapter again."
        )
    return value[:length].float()


def _card_of(weights: Path) -> dict[str, Any] | None:
    """Returns the card in the metadata of a weight file that spoton exported."""
    try:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {}).get("spoton")
        return None if text is None else Card.model_validate_json(text).model_dump()
    except (OSError, SafetensorError, ValidationError):
        return None
