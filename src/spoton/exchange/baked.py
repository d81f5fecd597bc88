"""Baked prompts: the frozen checkpoint with prompts as rows of its embedding matrix, so that any server can run them.

A prompt of P rows becomes P special tokens `<spot_NAME_0>`, `<spot_NAME_1>`, ... whose rows are the prompt's. Their
text in front of an input is the prompt. All other rows and weights stay unchanged.

The model must never generate the new tokens. Few servers let a checkpoint forbid tokens, so the output matrix gets
separate rows (it is untied from the input matrix where it was tied): copies of the row of one existing token that the
prompts make least likely. A copy never has a higher logit than its original, so greedy decoding does not change.
transformers, which reads `suppress_tokens`, forbids them outright.

Nothing here runs a server. `gguf.py` writes the same checkpoint as one file for llama.cpp.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from spoton.errors import ModelError, PromptError
from spoton.exchange.chat_template import chat_template
from spoton.files import atomic_write, let_others_read, writing
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt

BAKED_RECORD = "spoton.json"
# Texts whose tokens after a prefix are compared with the model's own: first words, spaces, digits, other scripts.
_CHECK_TEXTS = ("The film was lovely.", "it", " indented", "42 ways\nto say: größer, 大きい", "<b>")


@dataclass(frozen=True, eq=False)
class Baked:
    """A checkpoint with prompts, before it is written.

    Attributes:
        model: The frozen model it was made from.
        prompts: The prompts, in order.
        config: Configuration of the new checkpoint.
        state: Its weights by name. Unchanged weights are the model's own tensors.
        tokenizer: The model's tokenizer with the prompts' tokens; it adds nothing before a text.
        prefixes: Text of each prompt by name, BOS included where the model has one.
        banned: Ids of the new tokens.
        donor: Id of the token whose output row the new tokens share.
        notes: Notes for the user.
    """

    model: FrozenModel
    prompts: Sequence[SoftPrompt]
    config: PreTrainedConfig
    state: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerBase
    prefixes: dict[str, str]
    banned: list[int]
    donor: int
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> Path:
        """Writes a folder that `AutoModelForCausalLM` and `AutoTokenizer` read. The record comes last.

        Raises:
            SpotonError: A file cannot be written.
        """
        with torch.device("meta"):
            network = type(self.model.network)(self.config)
        network.generation_config = self._generation_config()
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        with writing(folder):
            (folder / BAKED_RECORD).unlink(missing_ok=True)
            network.save_pretrained(folder, state_dict=self.state)
            let_others_read(folder)
            self.tokenizer.save_pretrained(folder)
        atomic_write(
            folder / BAKED_RECORD, (json.dumps(self.record(), indent=2, ensure_ascii=False) + "\n").encode()
        )
        return folder

    def record(self) -> dict[str, Any]:
        """Returns the checkpoint's contents: its model, and the prefix and card of each prompt."""
        return {
            "model": self.model.name,
            "model_fingerprint": self.model.fingerprint,
            "output_row_of": self.tokenizer.convert_ids_to_tokens(self.donor),
            "prompts": [
                {
                    "name": prompt.card.name,
                    "prefix": self.prefixes[prompt.card.name],
                    "hash": prompt.content_hash(),
                    "card": prompt.card.model_dump(mode="json"),
                }
                for prompt in self.prompts
            ],
        }

    def _generation_config(self) -> GenerationConfig:
        end = self.model.tokenizer.eos_token_id
        pad = self.model.tokenizer.pad_token_id
        return GenerationConfig(  # type: ignore[no-untyped-call]  # transformers' own
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end if pad is None else pad,
            bos_token_id=self.model.tokenizer.bos_token_id,
            suppress_tokens=self.banned,
        )


def bake(model: FrozenModel, prompts: Sequence[SoftPrompt]) -> Baked:
    """Puts prompts into a copy of a model's checkpoint; unchanged weights are shared, not copied.

    Args:
        model: The frozen model.
        prompts: One or more of its prompts, with distinct names.

    Raises:
        PromptError: A prompt belongs to another model, or two have the same name.
        ModelError: The model is an encoder-decoder, has no plain output matrix, or a tokenizer that joins text and
            prompt tokens differently.
    """
    _require_fit(model, prompts)
    tokens = {prompt.card.name: _token_names(prompt) for prompt in prompts}
    tokenizer, begin = _with_tokens(model, [token for names in tokens.values() for token in names])
    ids = {name: [int(tokenizer.get_vocab()[token]) for token in names] for name, names in tokens.items()}
    banned = [i for one in ids.values() for i in one]
    rows = torch.cat([prompt.value for prompt in prompts]) / _scale(model)
    donor = _least_likely(model, prompts)
    state, config = _extended(model, rows, banned, donor)
    joint = _joint(model, tokenizer, begin, tokens, ids)
    prefixes = {name: "".join(names) + joint for name, names in tokens.items()}
    tokenizer.chat_template, notes = chat_template(prompts, prefixes)
    return Baked(model, list(prompts), config, state, tokenizer, prefixes, banned, donor, notes)


def _require_fit(model: FrozenModel, prompts: Sequence[SoftPrompt]) -> None:
    if model.is_encoder_decoder:
        raise ModelError(
            f"{model.name} is an encoder-decoder model, which the servers that read baked checkpoints do not run. "
            "Export its prompts to peft or tgis."
        )
    names = [prompt.card.name for prompt in prompts]
    if not names or len(set(names)) != len(names):
        raise PromptError(
            f"The prompts are named {', '.join(names) or 'nothing'}; expected at least one, and a name each. "
            "Add them to a library under different names."
        )
    for prompt in prompts:
        prompt.require_model(model.fingerprints, model.name)
    head = model.network.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers' own
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"{model.name} has no plain output matrix, so tokens cannot be added to it. Export its prompts to peft."
        )


def _token_names(prompt: SoftPrompt) -> list[str]:
    return [f"<spot_{prompt.card.name}_{i}>" for i in range(prompt.length)]


def _with_tokens(model: FrozenModel, tokens: list[str]) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Returns a copy of the tokenizer with new tokens that adds nothing before a text, and the ids it used to add.

    The beginning-of-sequence token belongs between prompt and text (`[P; BOS; text]`, as the prompt was tuned). No
    tokenizer puts it there, so it moves into the prefix.
    """
    tokenizer = copy.deepcopy(model.tokenizer)
    known = set(tokenizer.get_vocab())
    taken = [token for token in tokens if token in known]
    if taken:
        raise ModelError(
            f"{model.name} already has a token {taken[0]}. Bake into the model it was made from."
        )
    begin = [int(i) for i in model.encode_input("a")]
    bare = [int(i) for i in tokenizer.encode("a", add_special_tokens=False)]
    begin = begin[: len(begin) - len(bare)]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"{model.name} has no fast tokenizer (tokenizer.json), which baking needs.")
    if len(tokenizer.encode("a")) != len(bare):
        # For a byte-level tokenizer this also drops the trimming of offsets, which no server reads.
        backend.post_processor = None
        for name in ("add_bos_token", "add_eos_token"):
            if getattr(tokenizer, name, None):
                setattr(tokenizer, name, False)
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True
    )
    return tokenizer, begin


def _joint(
    model: FrozenModel,
    tokenizer: PreTrainedTokenizerBase,
    begin: list[int],
    tokens: dict[str, list[str]],
    ids: dict[str, list[int]],
) -> str:
    """Returns the text between a prompt's tokens and the input that makes both tokenize as in spoton."""
    start = "".join(tokenizer.convert_ids_to_tokens(begin))
    name, names = next(iter(tokens.items()))
    for joint in (start, f"{start} "):
        # Tokenizers that mark words by the preceding space drop the mark after a special token.
        read = [tokenizer.encode("".join(names) + joint + text) for text in _CHECK_TEXTS]
        if read == [[*ids[name], *model.encode_input(text)] for text in _CHECK_TEXTS]:
            return joint
    raise ModelError(
        f"The tokenizer of {model.name} reads a text behind special tokens otherwise than alone, so a baked prompt "
        "would not do what it was tuned to. Export to peft or vllm."
    )


def _scale(model: FrozenModel) -> float:
    """Returns the factor that the embedding layer multiplies its rows by: 1, or a constant (Gemma)."""
    row = model.embeddings[:64].float().cpu()
    vectors = model.network.get_input_embeddings()(torch.arange(64, device=model.device)).float().cpu()
    return float((vectors * row).sum() / (row * row).sum()) if not torch.equal(vectors, row) else 1.0


@torch.no_grad()
def _least_likely(model: FrozenModel, prompts: Iterable[SoftPrompt]) -> int:
    """Returns the token whose highest log-probability at the prompts' positions is the lowest."""
    highest = None
    for prompt in prompts:
        start = torch.tensor(model.encode_input("a"), device=model.device)
        tokens = model.network.get_input_embeddings()(start)
        embedded = torch.cat([prompt.value.to(tokens), tokens])[None]
        logits = model.network(inputs_embeds=embedded, use_cache=False).logits[0].float()
        best = logits.log_softmax(dim=-1).max(dim=0).values
        highest = best if highest is None else torch.maximum(highest, best)
    assert highest is not None
    return int(highest[: len(model.tokenizer)].argmin())


def _extended(
    model: FrozenModel, rows: Tensor, ids: list[int], donor: int
) -> tuple[dict[str, Tensor], PreTrainedConfig]:
    """Returns weights with new rows at `ids` and untied input and output matrices, and the matching configuration."""
    network = model.network
    size = max(model.embeddings.shape[0], max(ids) + 1)
    places = torch.tensor(ids)
    state = {name: tensor for name, tensor in network.state_dict().items()}
    head = network.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers' own

    inputs = _grown(model.embeddings, size)
    inputs[places] = rows.to(inputs)
    outputs = _grown(head.weight, size, donor)
    outputs[places] = outputs[donor].clone()
    state[_name_of(network.get_input_embeddings(), network) + ".weight"] = inputs
    state[_name_of(head, network) + ".weight"] = outputs
    if head.bias is not None:
        bias = _grown(head.bias, size, donor)
        bias[places] = bias[donor].clone()
        state[_name_of(head, network) + ".bias"] = bias

    config = copy.deepcopy(network.config)
    config.vocab_size = size
    config.tie_word_embeddings = False
    return state, config


def _grown(tensor: Tensor, size: int, donor: int | None = None) -> Tensor:
    """Returns a copy with copies of a row after its rows, or with zeros.

    A token that the model has no embedding of (an added pad token) may not get a logit of zero, which is the highest
    where all others are negative.
    """
    grown = torch.zeros(size, *tensor.shape[1:], dtype=tensor.dtype)
    grown[: tensor.shape[0]] = tensor.detach().cpu()
    if donor is not None:
        grown[tensor.shape[0] :] = grown[donor].clone()
    return grown


def _name_of(module: nn.Module, network: nn.Module) -> str:
    return str(next(name for name, part in network.named_modules() if part is module))
