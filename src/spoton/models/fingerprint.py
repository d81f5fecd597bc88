"""The fingerprint of a frozen model, which tells it from every other model that a prompt might be used with.

Every parameter enters, by the signs of a sample of its rows and by its size. The same checkpoint has one fingerprint in
float32, bfloat16 and float16. Rounding keeps every sign (a zero keeps its own), but of a single number nothing else:
the roundings of two types together can turn it into any other of the same sign. So signs are hashed, and sizes enter
only in coarse steps. If a model is near the edge of a step, the fingerprint of the neighbouring step is accepted
too.

A merged LoRA, further tuning and other seeds change signs. A factor on a whole parameter changes its size: always from
1.25 on, sometimes below that.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

VERSION = 2

# Settings that two networks of one family must share, besides weights, to be interchangeable for a prompt.
_ARCHITECTURE = (
    "model_type", "hidden_size", "d_model", "num_hidden_layers", "num_layers", "num_attention_heads", "num_heads",
    "num_key_value_heads", "intermediate_size", "d_ff", "head_dim", "vocab_size", "hidden_act", "tie_word_embeddings",
    # GPT-2, Bloom, MPT, Falcon, OPT, T5 and BART use different names for the same things.
    "n_embd", "n_layer", "n_layers", "n_head", "n_heads", "n_inner", "activation_function", "num_kv_heads",
    "ffn_hidden_size", "ffn_dim", "num_decoder_layers", "d_kv", "feed_forward_proj", "encoder_layers",
    "decoder_layers", "encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim",
    # Set by model tuning, which may leave the rounded embedding matrix unchanged.
    "spoton_tuned",
)  # fmt: skip

# Of a matrix, this many rows and columns are sampled, spread evenly; of the embedding matrix all rows and a quarter of
# the columns, since added tokens change single rows. A LoRA that moves weights by a hundredth flips 1 sign in 250, so
# about 60 per matrix.
_ROWS = _COLUMNS = 128

# A step of the weighted sum of log sizes. bfloat16 moves that sum by 0.0015 in SmolLM2-135M (272 parameters) and by at
# most 0.0011 in 100 tiny models of 25 families; float16 by a tenth of that. So two types see different steps in one
# model of a hundred, and the margin is thirteen times the effect of rounding.
_STEP = 0.2
_MARGIN = 0.02
# Smaller numbers count as this one in sizes: float16 rounds them to multiples of 6e-8.
_SMALLEST = 1e-3


def fingerprints(network: PreTrainedModel) -> tuple[str, ...]:
    """Returns the fingerprints that identify `network`: the current one, its neighbour if any, then that of version 1.

    Raises:
        ValueError: A weight is on no device (offloaded), so its values are unknown.
    """
    digest = hashlib.sha256(_architecture(network))
    embedding: Any = network.get_input_embeddings().weight
    size = 0.0
    for number, weight in enumerate(network.parameters()):
        sample = _sample(weight, all_rows=weight is embedding)
        signs = torch.signbit(sample).flatten()
        digest.update(f"{list(weight.shape)} ".encode() + _packed(signs))
        # Factors from 1 to 2, none a multiple of another, so that changes of two parameters do not cancel out.
        factor = 1 + (number + 1) * (math.sqrt(5) - 1) / 2 % 1
        size += factor * float((sample.double().abs() + _SMALLEST).log().mean())
    if not math.isfinite(size):  # weights that are NaN or infinite: still a model, though a useless one
        return _named(digest, 0), _version_1(network)
    step, rest = divmod(size, _STEP)
    steps = [int(step)]
    if rest < _MARGIN:
        steps.append(int(step) - 1)
    elif rest > _STEP - _MARGIN:
        steps.append(int(step) + 1)
    return (*(_named(digest, one) for one in steps), _version_1(network))


def _named(signs: hashlib._Hash, step: int) -> str:
    digest = signs.copy()
    digest.update(str(step).encode())
    return f"{VERSION}-{digest.hexdigest()[:16]}"


def _sample(weight: Tensor, *, all_rows: bool) -> Tensor:
    """Returns `[R, C]` rows of a parameter on the CPU, spread evenly; all of a vector."""
    weight = weight.detach()
    if weight.is_meta:
        raise ValueError("a weight is offloaded, so the model has no fingerprint")
    if weight.dim() < 2:
        return weight.reshape(1, -1).cpu()
    matrix = weight.flatten(0, -2)
    for dim, most in enumerate((len(matrix), _COLUMNS // 4) if all_rows else (_ROWS, _COLUMNS)):
        count = matrix.shape[dim]
        if count > most:
            places = torch.arange(most) * count // most
            matrix = matrix.index_select(dim, places.to(matrix.device))
    return matrix.cpu()


def _packed(bits: Tensor) -> bytes:
    """Returns booleans as bytes, eight per byte."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -len(bits) % 8)).view(-1, 8)
    return bytes((padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8).numpy().tobytes())


def _architecture(network: PreTrainedModel) -> bytes:
    """Returns the relevant fields of the config, as JSON."""
    config = network.config.get_text_config().to_dict()
    fields = {key: config[key] for key in _ARCHITECTURE if config.get(key) is not None}
    return json.dumps(fields, sort_keys=True, default=str).encode()


def _version_1(network: PreTrainedModel) -> str:
    """Returns the fingerprint of prompts from before version 2: the bfloat16 embedding matrix alone, 16 hex digits."""
    digest = hashlib.sha256(_architecture(network))
    embedding: Any = network.get_input_embeddings().weight
    rounded = embedding.detach().to("cpu", torch.bfloat16).contiguous()
    digest.update(rounded.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
