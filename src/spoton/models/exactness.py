"""Checks that an engine gives the numbers of plain concatenation: losses, label scores and the prompt's gradient.

A model is checked as loaded, in the type of its weights. Its architecture is checked again where rounding hides
nothing: a few narrow layers of the same class in float32, with random weights, and with attention windows and chunks
so short that rows cross them. `choose_engine.py` decides what follows from a check.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spoton.models.engine import Batch, Engine
from spoton.models.frozen import FrozenModel
from spoton.shapes import Float

# Texts of different lengths, so that packing, positions and masks all affect the result.
SHORT = ((4, 2), (1, 1), (6, 1))
# The second batch of the small copy; its longest rows cross every window of `_WINDOW` tokens, some twice.
LONG = ((30, 3), (2, 2), (13, 1), (44, 2))
_WINDOW = 16
_LABELS = ((3,), (4, 5))
# Layers of the small copy: enough to include every kind that the config lists, and no more.
_MOST_LAYERS = 12
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def check_rows(
    model: FrozenModel, lengths: Sequence[tuple[int, int]]
) -> tuple[Float[Tensor, "2 P D"], Batch]:
    """Returns two random prompts `[2, P, D]` and a batch of random rows, for comparing two computations.

    Args:
        model: The frozen model.
        lengths: Tokens of input and target of every row.
    """
    draw = torch.Generator().manual_seed(0)
    vocabulary, dim = model.embeddings.shape
    ids = [torch.randint(vocabulary, (n + m,), generator=draw).tolist() for n, m in lengths]
    batch = Batch(
        [row[:n] for row, (n, _) in zip(ids, lengths, strict=True)],
        [row[n:] for row, (n, _) in zip(ids, lengths, strict=True)],
        prompt=[row % 2 for row in range(len(ids))],
    )
    scale = float(model.embeddings[:1000].float().std())
    return torch.randn(2, 6, dim, generator=draw) * scale, batch


def tolerance_of(model: FrozenModel) -> float:
    """Returns how far two computations of the same may differ in the type of `model`, in nats and relatively."""
    return 1e-4 if model.dtype == torch.float32 else 0.05


def numbers(
    engine: Engine, model: FrozenModel, lengths: Sequence[tuple[int, int]], *, moved: bool = False
) -> dict[str, Tensor]:
    """Returns an engine's results on random rows: losses `[B]`, label scores `[B, C]`, the gradient `[2, P, D]`.

    Args:
        engine: An engine of `model`.
        model: The frozen model.
        lengths: Tokens of input and target of every row.
        moved: Move the prompts by half a step of the type of the model, so that the results show what rounding does.
    """
    prompts, batch = check_rows(model, lengths)
    if moved:
        prompts = prompts * (1 - torch.finfo(model.dtype).eps / 2)
    prompts = prompts[:, :4].to(model.device).requires_grad_()
    with torch.enable_grad():
        losses = engine.losses(prompts, batch)
        (gradient,) = torch.autograd.grad(losses.sum(), prompts)
    found = {
        "losses": losses,
        "scores": engine.scorer(prompts.detach())(batch, _LABELS),
        "gradient": gradient,
    }
    return {name: values.detach().float().cpu() for name, values in found.items()}


def difference(
    found: dict[str, Tensor],
    expected: dict[str, Tensor],
    tolerance: float,
    moved: dict[str, Tensor] | None = None,
) -> str:
    """Says in which numbers two engines differ, and by how much; an empty string if in none.

    Args:
        found: Numbers of one engine, from `numbers`: tensors `[...]` by name.
        expected: Numbers of the other.
        tolerance: See `tolerance_of`. A gradient may differ by ten times that, as a share of its norm, in float32, and
            by five times that in other types.
        moved: Numbers of the other from moved prompts; twice their difference is allowed, too.
    """
    other = expected if moved is None else moved
    for name in ("losses", "scores"):
        gap = (found[name] - expected[name]).abs()
        noise = 2 * (other[name] - expected[name]).abs().max()
        if not bool((gap <= torch.clamp_min(tolerance * (1 + expected[name].abs()), float(noise))).all()):
            return f"{name} differ by up to {float(gap.max()):.2g} nats"
    share = (found["gradient"] - expected["gradient"]).norm() / expected["gradient"].norm()
    noise = 2 * (other["gradient"] - expected["gradient"]).norm() / expected["gradient"].norm()
    if not bool(share <= max((10 if tolerance < 0.01 else 5) * tolerance, float(noise))):
        return f"gradients differ by {float(share):.1%}"
    return ""


def small_copy(model: FrozenModel) -> FrozenModel | None:
    """Returns a float32 CPU copy of the same class with few, narrow layers and random weights; None if that fails.

    Args:
        model: The model to copy class and config from; its weights are not read.
    """
    for narrow in (True, False):
        config = copy.deepcopy(model.network.config)
        _shorten(config.get_text_config(), narrow=narrow)
        try:
            with torch.random.fork_rng(), torch.device("cpu"):
                torch.manual_seed(0)
                kind: Any = type(model.network)
                network: PreTrainedModel = kind._from_config(config, dtype=torch.float32)
                _draw(network)
            small = FrozenModel(f"a small {config.model_type}", network, model.tokenizer)
            with torch.no_grad():
                network(inputs_embeds=torch.zeros(1, 2, small.dim), use_cache=False)
        except Exception:  # fields that depend on each other in unknown ways
            continue
        return small
    return None


def _shorten(config: Any, *, narrow: bool) -> None:
    """Reduces layers, shortens windows and, if asked, narrows layers; keeps the rest of the config."""
    fields = config.to_dict()
    layers = next((fields[name] for name in _LAYERS if isinstance(fields.get(name), int)), 0)
    by_layer = {
        name: value for name, value in fields.items() if isinstance(value, list) and len(value) == layers
    }
    kept = min(max(2, *(_first_of_all(value) for value in by_layer.values()), 2), _MOST_LAYERS, layers)
    for name in _LAYERS:
        if isinstance(fields.get(name), int):
            setattr(config, name, kept)
    for name, value in by_layer.items():
        setattr(config, name, value[:kept])
    for name, value in fields.items():
        if (
            isinstance(value, int)
            and value > _WINDOW
            and name.endswith(("_window", "window_size", "chunk_size"))
        ):
            setattr(config, name, _WINDOW)
        if name in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            short = {**value}
            if "original_max_position_embeddings" in short:
                short["original_max_position_embeddings"] = _WINDOW
            setattr(config, name, short)
        if name == "original_max_position_embeddings" and value:
            setattr(config, name, _WINDOW)
    if narrow:
        _narrow(config, fields)


def _first_of_all(values: Sequence[Any]) -> int:
    """Returns how many values from the start include every kind."""
    return max((values.index(kind) + 1 for kind in {str(one): one for one in values}.values()), default=0)


def _narrow(config: Any, fields: dict[str, Any]) -> None:
    """Sets four heads of 16, with the same proportion of shared heads, if the config uses the usual field names."""
    heads, width = fields.get("num_attention_heads"), fields.get("hidden_size")
    if not heads or not width or width <= 64:
        return
    shared = fields.get("num_key_value_heads") or heads
    config.num_attention_heads, config.hidden_size = 4, 64
    if "num_key_value_heads" in fields:
        config.num_key_value_heads = max(1, 4 * shared // heads)
    if fields.get("head_dim"):
        config.head_dim = 16
    if isinstance(fields.get("intermediate_size"), int):
        config.intermediate_size = 96


@torch.no_grad()
def _draw(network: PreTrainedModel) -> None:
    """Draws random weights, large enough that attention is far from even and every bias and scale has an effect."""
    for weight in network.parameters():
        if weight.dim() > 1:
            weight.normal_(std=weight.shape[-1] ** -0.5)
        else:
            weight.add_(torch.randn_like(weight), alpha=0.1)
    embedding: Any = network.get_input_embeddings().weight
    embedding.mul_(embedding.shape[-1] ** 0.5)
