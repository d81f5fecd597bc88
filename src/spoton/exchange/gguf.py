"""A baked checkpoint as one GGUF file, for llama.cpp and programs built on it (Ollama, LM Studio, llama-server).

Weights keep their type, so the file is as exact as the checkpoint; `llama-quantize` makes smaller files from it.
Supported are models of the Llama, Qwen2, Qwen3 and GPT-2 kind with a byte-level BPE tokenizer. llama.cpp has names for
how such a tokenizer splits text into words ("pre-tokenizer"). A wrong name silently gives other tokens, so an
unrecognized one is refused: llama.cpp's own `convert_hf_to_gguf.py` reads the baked folder of any model it knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from spoton.errors import ModelError
from spoton.exchange.baked import Baked
from spoton.files import atomic_save

_ELSEWHERE = "Export to baked, and convert that folder with llama.cpp's convert_hf_to_gguf.py."
_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
}
_TYPES = {
    torch.float32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    torch.float16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    torch.bfloat16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
# The regular expressions that Llama 3 and Qwen2 split text with before their merges.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS = {_SPLIT % "{1,3}": "llama-bpe", _SPLIT % "": "qwen2"}


def export_gguf(baked: Baked, path: Path) -> Path:
    """Writes a baked checkpoint as GGUF.

    Args:
        baked: The checkpoint.
        path: The file to write.

    Returns:
        The file.

    Raises:
        ModelError: The architecture, its positions, layers or tokenizer are not supported.
        SpotonError: The file cannot be written.
    """
    config = baked.config
    architecture = _ARCHITECTURES.get(str(config.model_type))
    if architecture is None:
        raise ModelError(
            f"{baked.model.name} is a {config.model_type} model; GGUF is written of {', '.join(_ARCHITECTURES)}. "
            f"{_ELSEWHERE}"
        )
    pre = _pre_tokenizer(baked)
    _require_plain_positions(baked)
    _require_known_layers(baked)

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[architecture])
        writer.add_name(f"{Path(baked.model.name).name} with prompts {', '.join(baked.prefixes)}")
        _add_shape(writer, config)
        writer.add_file_type(_TYPES[baked.model.dtype][1])
        _add_tokenizer(writer, baked, pre)
        writer.add_string("spoton.record", json.dumps(baked.record(), ensure_ascii=False))
        for name, array, kind in _tensors(baked, architecture):
            writer.add_tensor(name, array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    atomic_save(path, write)
    return path


def _require_plain_positions(baked: Baked) -> None:
    """Refuses rotary positions scaled for long texts: llama.cpp needs tables for them that are not written here."""
    rope = getattr(baked.config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelError(
            f"{baked.model.name} has rotary positions of type {kind!r}, which are not written. {_ELSEWHERE}"
        )


def _require_known_layers(baked: Baked) -> None:
    """Refuses layers that the architecture of llama.cpp does not have and that no key of the file asks for."""
    config = baked.config
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation_function", None)
    known = ("gelu_new", "gelu_pytorch_tanh") if config.model_type == "gpt2" else ("silu",)
    strange = [] if activation in known else [f"the activation {activation}"]
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        strange.append("layers with a sliding window")
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        strange.append("attention scaled by the number of its layer")
    if not getattr(config, "scale_attn_weights", True):
        strange.append("attention without a scale")
    if strange:
        raise ModelError(
            f"{baked.model.name} has {' and '.join(strange)}, which is not written. {_ELSEWHERE}"
        )


def _add_shape(writer: Any, config: PreTrainedConfig) -> None:
    """Writes the numbers that llama.cpp builds the network from."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)


def _add_tokenizer(writer: Any, baked: Baked, pre: str) -> None:
    """Writes tokens, merges and special ids; nothing is added before a text, since the prefix contains it."""
    stored = json.loads(baked.tokenizer.backend_tokenizer.to_str())
    special = {token["id"]: token["special"] for token in stored["added_tokens"]}
    by_id = {i: token for token, i in baked.tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for i in range(baked.config.vocab_size):
        tokens.append(by_id.get(i, f"[PAD{i}]"))
        if i not in by_id:
            kinds.append(gguf.TokenType.UNUSED)
        elif i in special:
            kinds.append(gguf.TokenType.CONTROL if special[i] else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = stored["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for name in ("bos", "eos", "pad", "unk"):
        i = getattr(baked.tokenizer, f"{name}_token_id")
        if i is not None:
            getattr(writer, f"add_{name}_token_id")(i)
    writer.add_add_bos_token(False)
    writer.add_chat_template(baked.tokenizer.chat_template)


def _pre_tokenizer(baked: Baked) -> str:
    """Returns llama.cpp's name for how the tokenizer splits text.

    Raises:
        ModelError: The tokenizer is not a known one.
    """
    stored = json.loads(baked.tokenizer.backend_tokenizer.to_str())
    steps = stored["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    is_bytes = stored["model"]["type"] == "BPE" and kinds[-1:] == ["ByteLevel"]
    if is_bytes and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"]:
            name = _PRE_TOKENIZERS.get(steps[0]["pattern"].get("Regex"))
            if name is not None:
                return name
    raise ModelError(
        f"The tokenizer of {baked.model.name} ({stored['model']['type']}, {', '.join(map(str, kinds))}) "
        f"has no name in GGUF that is known here. {_ELSEWHERE}"
    )


def _tensors(baked: Baked, architecture: Any) -> Iterator[tuple[str, np.ndarray[Any, Any], Any]]:
    """Yields the name, numbers and type of every weight in llama.cpp's layout."""
    config = baked.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    matrix_kind = _TYPES[baked.model.dtype][0]
    for key, tensor in baked.state.items():
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"{baked.model.name} has a weight {key} that GGUF has no name for. {_ELSEWHERE}")
        array = _laid_out(key, tensor.detach().float().cpu(), config).contiguous().numpy()
        # llama.cpp requires float32 for everything that is not a matrix, and for what it adds instead of multiplies.
        kind = gguf.GGMLQuantizationType.F32 if array.ndim < 2 or "position_embd" in name else matrix_kind
        yield name, gguf.quants.quantize(array, kind), kind


def _laid_out(key: str, tensor: Tensor, config: PreTrainedConfig) -> Tensor:
    if config.model_type == "gpt2" and key.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return tensor.T
    if config.model_type == "llama" and ".q_proj." in key:
        return _interleaved(tensor, config.num_attention_heads)
    if config.model_type == "llama" and ".k_proj." in key:
        return _interleaved(tensor, config.num_key_value_heads)
    return tensor


def _interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Returns rotary pairs side by side, as in llama.cpp's Llama; transformers keeps them half a head apart."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)
