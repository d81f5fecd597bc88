"""The frozen model: a pretrained network that never changes, its tokenizer and its identity.

It tokenizes and describes itself. Engines run prompts through it (`engine.py`); `loading.py` loads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from spoton.errors import ModelError, PromptError
from spoton.models.fingerprint import fingerprints
from spoton.shapes import Float

# The end of an input ("Answer:"), for tokenizing targets after it.
_INPUT_END = ":"


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """A pretrained model whose weights never change.

    Attributes:
        name: The user's name for it: an embedded model, a Hugging Face id, a folder or a file.
        network: The transformers model, in evaluation mode, no weight requiring a gradient.
        tokenizer: Its tokenizer.

    Raises:
        ModelError: The weights are quantized.

    Examples:
        >>> import spoton
        >>> model = spoton.load_model("smollm2-135m")  # doctest: +SKIP
        >>> model.dim  # doctest: +SKIP
        576
    """

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    derived: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    """Results that other modules compute once for this model, such as its engine; they live as long as it does."""

    def __post_init__(self) -> None:
        kind = _quantization(self.network)
        if kind is not None:
            raise ModelError(
                f"{self.name} holds quantized weights ({kind}), and spoton needs plain floating-point ones: losses and "
                "gradients through quantized layers are not exact. Load the model without quantization "
                "(--dtype bfloat16 halves its memory), or from a GGUF file, which is decoded."
            )
        self.network.train(False)
        self.network.requires_grad_(False)
        # Checkpoints carry settings for chats and summaries (penalties, forced tokens, beams, a minimum length).
        # transformers would apply them to every generation, which would no longer be the model's most likely text.
        self.network.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # transformers' own

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is pickled, for worker processes, and copied: all but `derived`.

        Engines hold functions, which cannot be pickled, and a copied engine would still run the first model.
        """
        return {**self.__dict__, "derived": {}}

    def require_width(self, value: object) -> None:
        """Refuses what is not a matrix of numbers as wide as the model's embeddings.

        Raises:
            PromptError: It is not a tensor `[P, D]`.
        """
        if isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == self.dim:
            return
        kind = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise PromptError(
            f"The prompt for {self.name} has {kind}; expected a tensor [P, {self.dim}]. Pass one row per virtual "
            "token; the matrix of a SoftPrompt is its `value`."
        )

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the model has an encoder that reads the input and a decoder that writes the target."""
        return bool(self.network.config.is_encoder_decoder)

    @property
    def embeddings(self) -> Float[Tensor, "V D"]:
        """`[V, D]` the input embedding matrix."""
        weight = self.network.get_input_embeddings().weight
        if not isinstance(weight, Tensor):
            raise ModelError(
                f"{self.name} has no plain input embedding matrix; spoton cannot put a prompt before it."
            )
        return weight

    @torch.no_grad()
    def token_vectors(self) -> Float[Tensor, "V D"]:
        """`[V, D]` the vector of every token at a prompt's position, float32 on the CPU.

        These are the rows of `embeddings`, times a constant in models that scale them (Gemma, some BARTs, Pegasus).
        """
        ids = torch.arange(self.embeddings.shape[0], device=self.device)
        vectors: Tensor = self.network.get_input_embeddings()(ids)
        return (vectors * self.encoder_scale).float().cpu()

    @cached_property
    @torch.no_grad()
    def encoder_scale(self) -> float:
        """What the encoder multiplies embedded tokens by, but not embeddings that it is given; 1 without an encoder.

        It is 1 for most encoders too, and `embed_scale` for Pegasus, Marian, MVP and small Blenderbots.

        Raises:
            ModelError: The encoder makes something else of embeddings than of their tokens.
        """
        if not self.is_encoder_decoder:
            return 1.0
        encoder: Any = self.network.get_encoder()
        tokens = torch.arange(min(8, len(self.embeddings)), device=self.device)[None]
        mask = torch.ones_like(tokens)
        expected = encoder(input_ids=tokens, attention_mask=mask)[0].float()
        embedded = self.network.get_input_embeddings()(tokens)
        for scale in (1.0, float(getattr(encoder, "embed_scale", None) or 1.0)):
            found = encoder(inputs_embeds=embedded * scale, attention_mask=mask)[0].float()
            if torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
                return scale
        raise ModelError(
            f"The encoder of {self.name} ({self.network.config.model_type}) makes something else of embeddings than "
            "of their tokens, so a soft prompt cannot be put before its text."
        )

    @property
    def dim(self) -> int:
        """D, the width of the embedding space."""
        return int(self.embeddings.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.embeddings.dtype

    @property
    def device(self) -> torch.device:
        """The device of the embedding matrix."""
        return self.embeddings.device

    @property
    def max_length(self) -> int | None:
        """The longest sequence that the positions allow; None where they are relative (T5)."""
        config = self.network.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            value = getattr(config, name, None)
            if isinstance(value, int) and config.model_type not in ("t5", "mt5", "umt5"):
                return value
        return None

    @property
    def fingerprint(self) -> str:
        """Identity of the model, whatever the type of its weights: the fingerprint's version and 16 hex digits."""
        return self.fingerprints[0]

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Every fingerprint of this model: its own, and those that older prompts may have (`fingerprints`)."""
        return fingerprints(self.network)

    def encode_input(self, text: str) -> list[int]:
        """Returns the token ids of an input text, with the special tokens the model expects (BOS; EOS for T5).

        A decoder-only model continues its input, so an end token that the tokenizer adds is left out.
        """
        ids = [int(i) for i in self.tokenizer.encode(text)]
        ends = len(ids) > 1 and not self.is_encoder_decoder and ids[-1] == self.tokenizer.eos_token_id
        if ends and ids[-1:] != [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)][-1:]:
            ids.pop()
        return ids

    def encode_target(self, text: str, *, end: bool) -> list[int]:
        """Returns the token ids of a target text.

        Args:
            text: The target. Decoder-only models see it after one space, as a word that continues the input.
            end: Whether the end-of-sequence token follows (always for encoder-decoder models, as in T5).
        """
        ids = self._tokens(text) if self.is_encoder_decoder else self._behind_an_input(text)
        if end or self.is_encoder_decoder:
            ids.append(self.end_token)
        return ids

    def _tokens(self, text: str) -> list[int]:
        return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]

    def _behind_an_input(self, text: str) -> list[int]:
        """Returns the tokens of a target after an input and one space.

        Some tokenizers (Llama 2, Mistral 7B) put a space before every text. Tokenized alone, a target would begin
        with a token for that space, which never occurs between an input and its target.
        """
        alone, joined = self._tokens(_INPUT_END), self._tokens(f"{_INPUT_END} {text}")
        if joined[: len(alone)] == alone and len(joined) > len(alone):
            return joined[len(alone) :]
        return self._tokens(f" {text}")

    def decode(self, ids: list[int]) -> str:
        """Returns the text of token ids, without special tokens and surrounding white space."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    @property
    def end_token(self) -> int:
        """Id of the end-of-sequence token.

        Raises:
            ModelError: The tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"The tokenizer of {self.name} has no end-of-sequence token; spoton needs one to stop."
            )
        return int(self.tokenizer.eos_token_id)

    def describe(self) -> dict[str, Any]:
        """Returns the facts a user wants about the model, as plain values."""
        return {
            "name": self.name,
            "family": self.network.config.model_type,
            "parameters": self.network.num_parameters(),
            "dim": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "fingerprint": self.fingerprint,
        }


def _quantization(network: PreTrainedModel) -> str | None:
    """Returns how the weights of `network` are quantized, in a word; None if all are plain floating-point numbers."""
    method = getattr(network, "quantization_method", None)
    name = str(getattr(method, "value", method or "by transformers"))
    # transformers also marks a network read from a GGUF file as quantized, though it has decoded it.
    if (method is not None or getattr(network, "is_quantized", False)) and name != "gguf":
        return name
    for weight in network.parameters():
        if type(weight) is not torch.nn.Parameter:  # torchao and bitsandbytes have their own types
            return type(weight).__name__
        if not weight.is_floating_point():
            return str(weight.dtype).removeprefix("torch.")
    # PyTorch's own quantized layers have a method where others have their weight.
    packed = (type(module) for module in network.modules() if callable(getattr(module, "weight", None)))
    return next((f"{kind.__module__}.{kind.__name__}" for kind in packed), None)
