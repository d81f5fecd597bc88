"""Checks of a checkpoint: all its weights are there, it reads from left to right, and its tokenizer fits.

They run when a model is loaded, before anything is tuned with it. `loading.py` finds checkpoints; `choose_engine.py`
chooses their engine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from spoton.errors import ModelError
from spoton.models.frozen import FrozenModel

# Prefixes that torch.compile, data parallelism and FSDP add to the names of weights, alone or combined.
_PREFIXES = re.compile(r"^(?:_orig_mod\.|module\.|_fsdp_wrapped_module\.|_forward_module\.)+")
# How far the scores of a token may depend on a later one, as a share of how far scores differ at all. Causal models
# reach 0 or almost 0, since both rows go through the same operations.
_LEAK = {torch.float32: 1e-4}
_LEAK_IN_HALF = 1e-3


def read_weights(name: str, auto: Any, folder: str | Path, options: dict[str, Any]) -> PreTrainedModel:
    """Returns a network with all the weights of its checkpoint.

    Prefixes that torch.compile, DataParallel or FSDP add to names are removed.

    Args:
        name: The user's name for the model.
        auto: transformers' class to read it with.
        folder: Its location.
        options: Options for `from_pretrained`.

    Raises:
        ModelError: Weights are missing, which transformers would draw at random, or have other shapes.
    """
    network, report = auto.from_pretrained(folder, output_loading_info=True, **options)
    missing = _missing(network, report)
    prefixes = {found[0] for key in report["unexpected_keys"] if (found := _PREFIXES.match(key))}
    if missing and prefixes:
        mapping = {f"^{re.escape(prefix)}": "" for prefix in sorted(prefixes, key=len, reverse=True)}
        network, report = auto.from_pretrained(
            folder, output_loading_info=True, key_mapping=mapping, **options
        )
        missing = _missing(network, report)
    if missing:
        others = sorted(report["unexpected_keys"])
        raise ModelError(
            f"{name} lacks {len(missing)} of the weights that a {network.config.model_type} model of its config has: "
            f"{_some(missing)}. They would be drawn at random. "
            + (f"It holds others that such a model has not: {_some(others)}. " if others else "")
            + "Save or fetch the whole checkpoint again; one of adapters alone has to be merged into its model first."
        )
    assert isinstance(network, PreTrainedModel)
    return network


def _missing(network: PreTrainedModel, report: dict[str, Any]) -> list[str]:
    """Returns names of weights that the checkpoint lacks; buffers follow from the config, tied weights from others."""
    weights = {key for key, _ in network.named_parameters(remove_duplicate=False)}
    return sorted(weights & set(report["missing_keys"]))


def require_soundness(model: FrozenModel) -> None:
    """Refuses a model that fails a check.

    Raises:
        ModelError: Tokens have no embedding, a decoder-only model sees later tokens, or weights are offloaded.
    """
    _require_whole(model)
    _require_embeddings(model)
    if not model.is_encoder_decoder:
        _require_causality(model)


def _require_whole(model: FrozenModel) -> None:
    """Refuses weights that a device map has put on disk, or in the memory of another device."""
    places = getattr(model.network, "hf_device_map", None) or {}
    kinds = {"disk" if place == "disk" else torch.device(place).type for place in places.values()}
    if len(kinds) > 1 or "disk" in kinds:
        raise ModelError(
            f"{model.name} does not fit on the devices it was to be loaded to: parts of it would lie on "
            f"{' and '.join(sorted(kinds))}, from where no gradient comes back in reasonable time. Choose more or "
            "larger devices, --dtype bfloat16, or a smaller model."
        )


def _require_embeddings(model: FrozenModel) -> None:
    """Refuses a tokenizer with tokens that have no embedding in the model; padding is never read."""
    rows = model.embeddings.shape[0]
    vocabulary = model.tokenizer.get_vocab()
    beyond = sorted(
        token
        for token, number in vocabulary.items()
        if number >= rows and number != model.tokenizer.pad_token_id
    )
    if beyond:
        raise ModelError(
            f"The tokenizer of {model.name} has {len(vocabulary)} tokens and the model {rows} embeddings; without one: "
            f"{_some(beyond)}. Use the tokenizer that belongs to the model, or save the model with the embeddings that "
            "were added for these tokens (resize_token_embeddings)."
        )


@torch.no_grad()
def _require_causality(model: FrozenModel) -> None:
    """Refuses a model whose scores at a token depend on later ones: an encoder such as BERT, loaded as a decoder."""
    draw = torch.Generator().manual_seed(0)
    row = torch.randint(model.embeddings.shape[0], (1, 9), generator=draw)
    other = row.clone()
    other[0, 5:] = torch.randint(model.embeddings.shape[0], (4,), generator=draw)
    ids = torch.cat([row, other]).to(model.device)
    try:
        one, two = model.network(input_ids=ids, use_cache=False).logits.float()
    except (NotImplementedError, TypeError, ValueError):  # `engine_for` reports what it rejects
        return
    leak = float((one[:5] - two[:5]).abs().max() / (one[5:] - two[5:]).abs().max().clamp(min=1e-30))
    if not leak <= _LEAK.get(model.dtype, _LEAK_IN_HALF):
        raise ModelError(
            f"{model.name} ({model.network.config.model_type}) reads in both directions: its scores at a token depend "
            "on the tokens behind it. spoton tunes prompts for models that continue a text (decoder-only) or that have "
            "an encoder and a decoder; an encoder such as BERT or RoBERTa does neither."
        )


def _some(names: list[str]) -> str:
    """Returns the first names of a list, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
