"""The upper bound: the matrix products that no engine for a decoder-only model can avoid, back to back.

The count shares everything that can be shared: the prompt runs once for all rows, there is no padding, logits exist at
target positions only, the last layer computes only keys and values of the other tokens, and no weight gets a gradient.
The rest (norms, activations, softmax, copies, Python) is not counted. An engine pays for it too, so no arm reaches
100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig


@dataclass(frozen=True)
class DecoderShape:
    """The widths of a decoder-only model with grouped attention heads and a gated feed-forward layer."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int

    @classmethod
    def of(cls, config: PreTrainedConfig) -> DecoderShape:
        """Returns the widths in a Llama-like config."""
        return cls(
            layers=config.num_hidden_layers,
            dim=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            feed_forward=config.intermediate_size,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True)
class Product:
    """`[batch, rows, inner] @ [batch, inner, columns]`, repeated a number of times."""

    batch: int
    rows: int
    inner: int
    columns: int
    times: int = 1

    @property
    def flops(self) -> int:
        """Returns the multiplications and additions of all repetitions."""
        return 2 * self.batch * self.rows * self.inner * self.columns * self.times


def unavoidable_products(
    shape: DecoderShape,
    prompt_length: int,
    lengths: Sequence[int],
    targets: int,
    *,
    training: bool,
) -> list[Product]:
    """Returns the products of one step.

    Args:
        shape: The model.
        prompt_length: P.
        lengths: Tokens of each text that go through the layers.
        targets: Positions at which logits are needed.
        training: Includes the gradients of everything but the weights, and the prompt in the row. Scoring has
            neither: the prompt's keys and values are cached.
    """
    real = sum(lengths)
    tokens = real + (prompt_length if training else 0)
    products = []
    for name, (inner, columns) in _linear_layers(shape).items():
        last = tokens if name in ("key", "value") else targets
        for rows, times in ((tokens, shape.layers - 1), (last, 1)):
            products.append(Product(1, rows, inner, columns, times))
            if training:
                products.append(Product(1, rows, columns, inner, times))
    group = shape.heads // shape.kv_heads
    # Each text attends to itself. All texts count as one batched product of their mean square length. It has the same
    # arithmetic without the overhead of a call per text, so it is the strictest bound.
    own = math.ceil(math.sqrt(sum(n * n for n in lengths) / len(lengths)))
    asked = math.ceil(targets / len(lengths))
    seen = [
        (shape.kv_heads * len(lengths), group * own, own, shape.layers - 1),
        (shape.kv_heads * len(lengths), group * asked, own, 1),
    ]
    if prompt_length:
        seen.append((shape.kv_heads, group * real, prompt_length, shape.layers - 1))
        seen.append((shape.kv_heads, group * targets, prompt_length, 1))
        if training:
            seen.append((shape.kv_heads, group * prompt_length, prompt_length, shape.layers - 1))
    for batch, queries, keys, times in seen:
        products += _attention(batch, queries, keys, shape.head_dim, times, training)
    products.append(Product(1, targets, shape.dim, shape.vocabulary))
    if training:
        products.append(Product(1, targets, shape.vocabulary, shape.dim))
    return products


def runner(products: Sequence[Product], dtype: torch.dtype) -> Callable[[], None]:
    """Allocates operands once and returns a function that multiplies them all, into buffers allocated before."""
    jobs = []
    for p in products:
        left = torch.randn(p.batch, p.rows, p.inner).to(dtype)
        # Stored as torch stores a weight, [columns, inner]: the faster of the two layouts here.
        right = torch.randn(p.batch, p.columns, p.inner).to(dtype).transpose(1, 2)
        jobs.append((left, right, torch.empty(p.batch, p.rows, p.columns, dtype=dtype), p.times))

    @torch.no_grad()
    def run() -> None:
        for left, right, out, times in jobs:
            for _ in range(times):
                if len(left) == 1:
                    torch.mm(left[0], right[0], out=out[0])
                else:
                    torch.bmm(left, right, out=out)

    return run


def _linear_layers(shape: DecoderShape) -> dict[str, tuple[int, int]]:
    """Returns (in, out) of the seven products of a layer with its weights."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "query": (shape.dim, queries), "key": (shape.dim, keys), "value": (shape.dim, keys),
        "output": (queries, shape.dim), "gate": (shape.dim, shape.feed_forward),
        "up": (shape.dim, shape.feed_forward), "down": (shape.feed_forward, shape.dim),
    }  # fmt: skip


def _attention(batch: int, queries: int, keys: int, width: int, times: int, training: bool) -> list[Product]:
    """Returns attention's products; in training also those for the gradients of weights, queries, keys and values."""
    scores = Product(batch, queries, width, keys, times)
    mixed = Product(batch, queries, keys, width, times)
    if not training:
        return [scores, mixed]
    to_keys = Product(batch, keys, queries, width, times)
    return [scores, mixed, scores, mixed, to_keys, to_keys]
