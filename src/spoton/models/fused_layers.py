"""Llama and similar models on a GPU: the layers of `llama_layers.py` in a third of the kernels.

A step of a small model is bound by the time that it takes to launch kernels, not by arithmetic. So query, key and value
are one product, gate and up another, norms are PyTorch's fused ones, and attention is `cascade_attention.py`. Joint
weights take no memory: the model's own weights become views of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from spoton.models.cascade_attention import Cascade, CascadeOfRotated
from spoton.models.frozen import FrozenModel
from spoton.models.frozen_layers import Joined, projected
from spoton.models.llama_layers import runs_by_hand
from spoton.models.packed_rows import PromptCache
from spoton.shapes import Float, Int

_WIDEST_HEAD = 256  # of FlashAttention 2


@dataclass(frozen=True)
class FusedLayer:
    """A layer with its joint products.

    Attributes:
        module: The layer of transformers.
        heads: Heads of the queries and of the keys.
        joint: Query, key and value.
        gate_up: Gate and up of the feed-forward part.
    """

    module: Any
    heads: tuple[int, int]
    joint: Joined
    gate_up: Joined


def can_fuse(model: FrozenModel) -> bool:
    """Returns whether a model lies on a GPU that FlashAttention knows, in 16 bits, and is of a known family."""
    if model.device.type != "cuda" or not runs_by_hand(model):
        return False
    config = model.network.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (
        model.dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(model.device) >= (8, 0)
        and config.hidden_act == "silu"
        and head % 8 == 0
        and head <= _WIDEST_HEAD
    )


def fused_layers(model: FrozenModel) -> list[FusedLayer]:
    """Returns the layers of a model of these families; its weights become views of the joint ones."""
    found = []
    layers: Any = model.network.base_model.layers
    for layer in layers:
        own, mlp = layer.self_attn, layer.mlp
        heads = own.q_proj.out_features // own.head_dim, own.k_proj.out_features // own.head_dim
        joint = _joined(own.q_proj, own.k_proj, own.v_proj)
        found.append(FusedLayer(layer, heads, joint, _joined(mlp.gate_proj, mlp.up_proj)))
    return found


@torch.no_grad()
def _joined(*layers: nn.Linear) -> Joined:
    own: list[Tensor] = [layer.weight for layer in layers]
    weight = torch.cat(own)
    for layer, part in zip(layers, torch.split(weight, [len(one) for one in own]), strict=True):
        layer.weight.data = part
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    return Joined(weight, torch.cat(biases) if biases else None)


def last_hidden_states(
    body: Any,
    layers: Sequence[FusedLayer],
    embedded: Float[Tensor, "T D"],
    positions: Int[Tensor, "1 T"],
    places: Cascade,
    wanted: Int[Tensor, " N"],
    prompts: Sequence[range],
    *,
    cache: PromptCache | None = None,
    record: PromptCache | None = None,
) -> Float[Tensor, "N D"]:
    """Returns the last hidden states at some places of a packed row: `[N, D]`.

    Args:
        body: The model below its output layer.
        layers: Its layers.
        embedded: `[T, D]` the packed row.
        positions: `[1, T]` position of every token in its own sequence.
        places: Which tokens attend to which.
        wanted: `[N]` wanted places.
        prompts: Places of every prompt.
        cache: Keys and values of the prompts, if they are not in the row.
        record: Where to write the keys and values of the prompts.
    """
    cos, sin = (part[0, :, None] for part in body.rotary_emb(embedded[None], positions))
    x = embedded
    for number, layer in enumerate(layers):
        module, own = layer.module, layer.module.self_attn
        joint = projected(_normed(x, module.input_layernorm), layer.joint)[0].view(len(x), -1, own.head_dim)
        if hasattr(own, "q_norm"):  # Qwen3
            query, key, value = torch.split(joint, [*layer.heads, layer.heads[1]], dim=1)
            joint = torch.cat([_normed(query, own.q_norm), _normed(key, own.k_norm), value], dim=1)
        cached = None if cache is None else cache.table(number, len(prompts))
        mixed, key, value = CascadeOfRotated.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            joint, cos, sin, layer.heads, places, cached, own.scaling
        )
        if record is not None:
            for prompt, own_place in enumerate(prompts):
                at = slice(own_place.start, own_place.stop)
                # Clones, since a view would keep the whole row's projections alive with the cache.
                pair = (part[at].transpose(0, 1).clone() for part in (key, value))
                record.entries[number, prompt] = (next(pair), next(pair))
        mixed = mixed.flatten(1)
        if number + 1 == len(layers):
            mixed, x = mixed.index_select(0, wanted), x.index_select(0, wanted)
        x = x + projected(mixed, own.o_proj)[0]
        gate_up = projected(_normed(x, module.post_attention_layernorm), layer.gate_up)[0]
        gated: Tensor = _GatedSilu.apply(gate_up)  # type: ignore[no-untyped-call]  # as above
        x = x + projected(gated, module.mlp.down_proj)[0]
    return _normed(x, body.norm)


def _normed(x: Tensor, module: Any) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)


class _GatedSilu(torch.autograd.Function):
    """`silu(gate) * up` of a joint product; keeps that product only."""

    @staticmethod
    def forward(ctx: Any, joint: Tensor) -> Tensor:
        """`[T, 2 F]` -> `[T, F]`."""
        ctx.save_for_backward(joint)
        gate, up = joint.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Writes both gradients into one tensor `[T, 2 F]`."""
        (joint,) = ctx.saved_tensors
        gate, up = joint.chunk(2, dim=-1)
        total = torch.empty_like(joint)
        to_gate, to_up = total.chunk(2, dim=-1)
        torch.mul(grad, functional.silu(gate), out=to_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=to_gate)
        return total
