"""Tiny real things to test with: a tokenizer trained here, networks with random weights, a toy task.

Nothing is downloaded and nothing is imitated: these are transformers' own classes, only small.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from spoton.models import FrozenModel
from spoton.tasks import Example, Task

GOOD = ("lovely", "bright", "warm", "clever")
BAD = ("dreadful", "dull", "cold", "silly")
NOUNS = ("film", "book", "song", "play", "meal")

VOCABULARY = 320
WIDTH = 48

_LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 128,
    # The ids that the tokenizer below gives.
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_GROUPED = _LLAMA_LIKE | {"num_key_value_heads": 2}

# The decoder of T5Gemma, and its encoder.
_GEMMA_HALF = _GROUPED | {
    "num_hidden_layers": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "bos_token_id": 2,
}
_T5_LIKE = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "eos_token_id": 0, "pad_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip
_GATED_T5 = _T5_LIKE | {"feed_forward_proj": "gated-gelu"}

_BART_LIKE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "max_position_embeddings": 128, "bos_token_id": 2, "eos_token_id": 0, "pad_token_id": 1,
    "decoder_start_token_id": 0, "forced_eos_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _GROUPED),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 128,
         "bos_token_id": 0, "eos_token_id": 0},
    ),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _GROUPED | {"head_dim": 8}),
    "mistral": ("MistralConfig", _GROUPED | {"sliding_window": None}),
    "gemma2": ("Gemma2Config", _GROUPED | {"head_dim": 8}),
    "gemma3": ("Gemma3TextConfig", _GROUPED | {"head_dim": 8}),
    "smollm3": ("SmolLM3Config", _GROUPED | {"no_rope_layer_interval": 2}),
    "olmo2": ("Olmo2Config", _GROUPED),
    "granite": ("GraniteConfig", _GROUPED | {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "phi": ("PhiConfig", _LLAMA_LIKE),
    "phi3": ("Phi3Config", _GROUPED),
    "gpt_neox": ("GPTNeoXConfig", _LLAMA_LIKE),
    "opt": (
        "OPTConfig",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "num_hidden_layers": 2,
         "ffn_dim": 64, "num_attention_heads": 4, "max_position_embeddings": 128,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1},
    ),
    "mpt": (
        "MptConfig",
        {"vocab_size": VOCABULARY, "d_model": WIDTH, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    ),
    "bloom": (
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": 2, "n_head": 4,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1},
    ),
    "falcon_alibi": (
        "FalconConfig", _LLAMA_LIKE | {"alibi": True, "new_decoder_architecture": False},
    ),
    "falcon": ("FalconConfig", _LLAMA_LIKE | {"alibi": False, "new_decoder_architecture": False}),
    "falcon_new": (
        "FalconConfig", _LLAMA_LIKE | {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "t5": ("T5Config", _T5_LIKE),
    # T5 v1.1 and Flan-T5 have an output matrix of their own, and do not scale what it reads.
    "t5_v1_1": ("T5Config", _GATED_T5 | {"tie_word_embeddings": False}),
    "mt5": ("MT5Config", _GATED_T5),
    "umt5": ("UMT5Config", _GATED_T5),
    "t5gemma": (
        "T5GemmaConfig",
        {"encoder": _GEMMA_HALF,
         "decoder": _GEMMA_HALF | {"is_decoder": True, "cross_attention_hidden_size": WIDTH},
         "vocab_size": VOCABULARY, "eos_token_id": 0, "pad_token_id": 1, "decoder_start_token_id": 2},
    ),
    "bart": ("BartConfig", _BART_LIKE),
    "mamba": (
        "MambaConfig",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "state_size": 8, "num_hidden_layers": 2,
         "eos_token_id": 0, "bos_token_id": 2, "pad_token_id": 1},
    ),
    "rwkv": (
        "RwkvConfig",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 2, "context_length": 128,
         "eos_token_id": 0, "bos_token_id": 2},
    ),
    "pegasus": ("PegasusConfig", _BART_LIKE | {"scale_embedding": True}),
    "marian": ("MarianConfig", _BART_LIKE | {"scale_embedding": True}),
    "mvp": ("MvpConfig", _BART_LIKE | {"scale_embedding": True, "use_prompt": False}),
    "bart_scaled": ("BartConfig", _BART_LIKE | {"scale_embedding": True}),
}  # fmt: skip

UNTIED = ("t5_v1_1", "mt5", "umt5")


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows the words of the toy task: `</s>` is 0, `<pad>` 1, `<s>` 2.

    A copy of its own for every caller: what one test changes in it, no other test reads.
    """
    return copy.deepcopy(_trained_tokenizer())


@cache
def _trained_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["</s>", "<pad>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [f" The {noun} was {word}." for noun in NOUNS for word in (*GOOD, *BAD)]
    bpe.train_from_iterator([*text, *[" Verdict: yes no maybe"] * 40], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>", bos_token="<s>")


def config(family: str, **changes: Any) -> PreTrainedConfig:
    """The config of a tiny network of one family."""
    name, fields = FAMILIES[family]
    kind: Callable[..., PreTrainedConfig] = getattr(transformers, name)
    return kind(**(fields | changes))


def tiny(family: str = "llama", seed: int = 0, **changes: Any) -> FrozenModel:
    """A frozen model with random weights, large enough that attention is far from even."""
    wanted = config(family, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        auto = AutoModelForSeq2SeqLM if wanted.is_encoder_decoder else AutoModelForCausalLM
        network = auto.from_config(wanted)
        for weight in network.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.15)
        if family in UNTIED:
            # Newer versions of transformers tie the two in every T5 whose checkpoint does not hold both.
            output = torch.nn.Parameter(torch.empty(VOCABULARY, WIDTH).normal_(std=0.15))
            network.get_output_embeddings().weight = output
    return FrozenModel(f"tiny-{family}", network, tokenizer())


def with_biases(family: str) -> FrozenModel:
    """A tiny model whose biases and norm weights are not 0 and 1, which would hide that they are left out."""
    model = tiny(family)
    with torch.no_grad():
        for number, weight in enumerate(model.network.parameters()):
            if weight.dim() == 1:
                weight.add_(draw(len(weight), seed=number))
    return model


def draw(*shape: int, seed: int = 0, scale: float = 0.3) -> torch.Tensor:
    """Random numbers for a prompt."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def toy_task(labels: tuple[str, ...] | None = ("yes", "no"), **changes: Any) -> Task:
    """Whether something is praised: 24 training, 8 validation and 8 test examples; open targets if no labels."""
    words = labels or ("yes", "no")
    rows = [
        Example(f"The {noun} was {word}.\nVerdict:", words[word in BAD])
        for noun in NOUNS
        for pair in zip(GOOD, BAD, strict=True)
        for word in pair
    ]
    fields: dict[str, Any] = {
        "name": "toy", "family": "sentiment", "train": tuple(rows[:24]), "validation": tuple(rows[24:32]),
        "test": tuple(rows[32:]), "labels": labels, "metrics": ("accuracy",) if labels else ("exact_match",),
        "template": "{{ text }}", "source": "file:toy",
    }  # fmt: skip
    return Task(**(fields | changes))
