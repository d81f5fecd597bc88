"""Llama and similar models (SmolLM, Mistral, Qwen2, Qwen3) layer by layer over a packed row.

Computes the same as transformers' own layers in fewer passes over memory (`frozen_layers.py`). The last layer computes
only keys and values for every token; what follows its attention runs at the wanted places alone. `packed_rows.py`
decides which tokens attend to which, and `engine_for` checks numerically that a model is of this kind. This file
computes no losses.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from spoton.models.frozen import FrozenModel
from spoton.models.frozen_layers import is_plain, projected, rms_norm, rotated
from spoton.models.packed_attention import attention
from spoton.shapes import Float, Int

LLAMA_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def runs_by_hand(model: FrozenModel) -> bool:
    """Returns whether `model` is of such a family and its layers may run by hand (none compiled, no hooks)."""
    return model.network.config.model_type in LLAMA_FAMILIES and is_plain(model.network)


def last_hidden_states(
    body: Any, embedded: Float[Tensor, "T D"], positions: Int[Tensor, "1 T"], places: Int[Tensor, " N"]
) -> Float[Tensor, "N D"]:
    """Returns the last hidden states at some places of a packed row: `[N, D]`. Call it within `packed_attention`.

    Args:
        body: The model below its output layer.
        embedded: `[T, D]` the packed row.
        positions: `[1, T]` position of every token in its own sequence.
        places: `[N]` wanted places.
    """
    cos, sin = (part[0, :, None] for part in body.rotary_emb(embedded[None], positions))
    x = embedded
    layers: Any = body.layers
    for number, layer in enumerate(layers):
        mixed = _attended(_normed(x, layer.input_layernorm), layer.self_attn, cos, sin)
        if number + 1 == len(layers):
            mixed, x = mixed.index_select(0, places), x.index_select(0, places)
        x = x + projected(mixed, layer.self_attn.o_proj)[0]
        x = x + _fed_forward(_normed(x, layer.post_attention_layernorm), layer.mlp)
    return _normed(x, body.norm)


def _attended(x: Tensor, module: Any, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns `[T, H * hd]` the output of the heads for `[T, D]`."""
    parts = projected(x, module.q_proj, module.k_proj, module.v_proj)
    query, key, value = (part.view(len(x), -1, module.head_dim) for part in parts)
    if hasattr(module, "q_norm"):  # Qwen3
        query, key = _normed(query, module.q_norm), _normed(key, module.k_norm)
    query, key = rotated(query, cos, sin), rotated(key, cos, sin)
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
    return attention(module, query, key, value, None, scaling=module.scaling)[0][0].flatten(1)


def _fed_forward(x: Tensor, module: Any) -> Tensor:
    gate, up = projected(x, module.gate_proj, module.up_proj)
    return projected(module.act_fn(gate) * up, module.down_proj)[0]


def _normed(x: Tensor, module: Any) -> Tensor:
    return rms_norm(x, module.weight, module.variance_epsilon)
