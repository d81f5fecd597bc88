"""The start of a prompt: the first value `[P, D]` of a tuning run, before any step is taken.

The strategies of Lester et al. 2021 (section 3.2: random uniform, sampled vocabulary, class labels), a text,
and the two of soft prompt transfer: another prompt, or a weighted combination of several.

This file works with embedding matrices and token ids; it does not load a model or turn text into ids.
Results are float32 on the CPU. All randomness comes from the seed: equal arguments give equal prompts.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from spoton.errors import PromptError
from spoton.prompts.soft_prompt import resize_prompt
from spoton.shapes import Float


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that `common_token_ids` reads."""

    def get_vocab(self) -> dict[str, int]:
        """Returns token to id."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """Returns token to id, for special and added tokens alone."""
        ...


def from_uniform(length: int, dim: int, seed: int, scale: float = 0.5) -> Float[Tensor, "{length} {dim}"]:
    """Returns uniform random numbers from [-scale, scale] (Lester et al. 2021, section 3.2).

    The authors' code draws from [0, scale) instead; this follows the paper.

    Args:
        length: P.
        dim: D.
        seed: Seed of the random numbers.
        scale: Half the width of the interval.

    Returns:
        `[length, dim]` float32.

    Raises:
        PromptError: `length` is less than 1.
    """
    _check_length(length)
    return (2 * torch.rand(length, dim, generator=_generator(seed)) - 1) * scale


def from_vocabulary(
    embeddings: Float[Tensor, "V D"], common_ids: Sequence[int], length: int, seed: int
) -> Float[Tensor, "{length} D"]:
    """Returns embeddings of randomly chosen common tokens (Lester et al. 2021, section 3.2).

    Args:
        embeddings: `[V, D]` the model's input embeddings.
        common_ids: The tokens to choose from, such as `common_token_ids(tokenizer)`.
        length: P. No token is chosen twice unless there are fewer than P.
        seed: Seed of the choice.

    Returns:
        `[length, D]` float32.

    Raises:
        PromptError: `length` is less than 1, or `common_ids` is empty or outside the vocabulary.
    """
    _check_length(length)
    population = len(common_ids)
    if population == 0:
        raise PromptError("There are no common tokens to choose from. Pass at least one token id.")
    if length <= population:
        chosen = torch.randperm(population, generator=_generator(seed))[:length]
    else:
        chosen = torch.randint(population, (length,), generator=_generator(seed))
    return _rows(embeddings, [common_ids[place] for place in chosen.tolist()])


def from_label_words(
    embeddings: Float[Tensor, "V D"],
    label_ids: Sequence[Sequence[int]],
    common_ids: Sequence[int],
    length: int,
    seed: int,
) -> Float[Tensor, "{length} D"]:
    """Returns embeddings of the label words first, then of common tokens (Lester et al. 2021, section 3.2).

    A label of several tokens becomes one row, their mean. Labels beyond `length` are left out.

    Args:
        embeddings: `[V, D]` the model's input embeddings.
        label_ids: Token ids of each label word.
        common_ids: The tokens to choose the remaining rows from.
        length: P.
        seed: Seed of the choice.

    Returns:
        `[length, D]` float32.

    Raises:
        PromptError: `length` is less than 1, a label has no tokens, or ids are outside the vocabulary.
    """
    _check_length(length)
    if not all(label_ids):
        raise PromptError("A label word has no tokens. Give every label at least one visible character.")
    labels = [_rows(embeddings, ids).mean(dim=0, keepdim=True) for ids in label_ids[:length]]
    missing = length - len(labels)
    rest = [from_vocabulary(embeddings, common_ids, missing, seed)] if missing else []
    return torch.cat(labels + rest)


def from_text(
    embeddings: Float[Tensor, "V D"], token_ids: Sequence[int], length: int
) -> Float[Tensor, "{length} D"]:
    """Returns embeddings of a text's tokens, repeated from the start or cut to `length`.

    Args:
        embeddings: `[V, D]` the model's input embeddings.
        token_ids: The text.
        length: P.

    Returns:
        `[length, D]` float32.

    Raises:
        PromptError: `length` is less than 1, or the text is empty or outside the vocabulary.
    """
    if not token_ids:
        raise PromptError("The text to start from has no tokens. Give at least one word.")
    return resize_prompt(_rows(embeddings, token_ids), length)


def from_prompt(value: Float[Tensor, "Q D"], length: int) -> Float[Tensor, "{length} D"]:
    """Returns another prompt resized to `length` (see `resize_prompt`): soft prompt transfer from one source.

    Args:
        value: `[Q, D]` the source prompt.
        length: P.

    Returns:
        `[length, D]` float32, a copy.

    Raises:
        PromptError: `length` is less than 1.
    """
    return resize_prompt(_plain(value), length)


def from_combination(
    values: Sequence[Float[Tensor, "_ _"]], weights: Sequence[float], length: int
) -> Float[Tensor, "{length} D"]:
    """Returns a weighted average of prompts (Vu et al. 2022, section 3.3), each first resized to `length`.

    Args:
        values: `[Q, D]` each; the lengths may differ.
        weights: One per prompt, not negative; they are divided by their sum.
        length: P.

    Returns:
        `[length, D]` float32.

    Raises:
        PromptError: `length` is less than 1, there is not one weight per prompt, the prompts differ in D, or
            the weights are negative, not finite, or all zero.
    """
    if not values or len(values) != len(weights):
        raise PromptError(
            f"{len(values)} prompts and {len(weights)} weights; expected one weight per prompt."
        )
    if len({value.shape[1] for value in values}) != 1:
        dims = [value.shape[1] for value in values]
        raise PromptError(f"The prompts have dimensions {dims}. Combine prompts of one model only.")
    shares = torch.tensor(weights, dtype=torch.float64)
    if not shares.isfinite().all() or (shares < 0).any() or not 0 < shares.sum() < torch.inf:
        raise PromptError(
            f"The weights are {list(weights)}; expected none below zero and a sum above it. "
            "Leave out prompts that are dissimilar."
        )
    resized = torch.stack([from_prompt(value, length) for value in values])
    return torch.einsum("k,kpd->pd", (shares / shares.sum()).float(), resized)


def common_token_ids(tokenizer: Tokenizer, count: int = 5000) -> list[int]:
    """Returns the tokens that a tokenizer suggests are most frequent in pretraining text (5,000: Lester et al. 2021).

    A unigram SentencePiece vocabulary (T5) is sorted by likelihood, so these are its first ids. The ids of a BPE
    vocabulary are in merge order: frequent pairs come first, but the earliest are fragments ("th", "er") that later
    merges absorb and that rarely occur in text. Only tokens that begin a word and are all letters are kept: mostly
    words, for which an early merge means high frequency. The letters are a to z: byte-level vocabularies spell other
    scripts in bytes, and would add parts of characters. A vocabulary without word marks gives its ids in order.

    Special and added tokens are always left out.

    Args:
        tokenizer: A Hugging Face tokenizer.
        count: Largest number of ids.

    Returns:
        Ids, most frequent first; fewer than `count` if the vocabulary has no more.
    """
    added = tokenizer.get_added_vocab()
    vocabulary = sorted((i, token) for token, i in tokenizer.get_vocab().items() if token not in added)
    backend = getattr(tokenizer, "backend_tokenizer", None)  # absent from tokenizers written in Python
    words: list[int] = []
    if type(getattr(backend, "model", None)).__name__ != "Unigram":
        words = [i for i, token in vocabulary if _begins_word(token)]
    return (words or [i for i, _ in vocabulary])[:count]


def _begins_word(token: str) -> bool:
    mark, letters = token[:1], token[1:]
    return mark in {"Ġ", "▁"} and letters.isascii() and letters.isalpha()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _plain(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32)


def _rows(embeddings: Float[Tensor, "V D"], ids: Sequence[int]) -> Float[Tensor, "{len(ids)} D"]:
    vocabulary = embeddings.shape[0]
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise PromptError(
            f"Token ids from {min(ids)} to {max(ids)}, but the model has {vocabulary} embeddings. "
            "Use the tokenizer that belongs to the model."
        )
    return _plain(embeddings[torch.tensor(ids, device=embeddings.device)])


def _check_length(length: int) -> None:
    if length < 1:
        raise PromptError(f"A prompt of length {length} was asked for. Choose a length of at least 1.")
