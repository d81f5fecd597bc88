"""Conversion of a soft prompt to another frozen model, through the tokens that both vocabularies have.

The anchors are the tokens with the same text in both. `relative` describes a row of a prompt by its cosines to the
anchors' embeddings in the source model, its relative representation, and takes the row of the target model whose
cosines to the same tokens are most alike (Wu et al. 2024, https://arxiv.org/abs/2310.01691). `linear` fits one linear
map from the anchors' embeddings in the source model to those in the target model, and applies it to the prompt.

A converted prompt is a start to tune from, not a prompt to use untuned. Nothing is tuned here, no model is run, and
nothing is random: equal arguments give equal prompts.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spoton.errors import ModelError
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card, Parent
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float

ConversionMethod = Literal["relative", "linear"]
CONVERSIONS: tuple[str, ...] = get_args(ConversionMethod)

TOP_ANCHORS = 8192
"""Anchors that a relative representation keeps: the number of the paper."""


def convert(
    prompt: SoftPrompt,
    source: FrozenModel,
    target: FrozenModel,
    *,
    method: ConversionMethod = "relative",
    top: int = TOP_ANCHORS,
) -> SoftPrompt:
    """Re-expresses a prompt of one model in the embedding space of another, as a start to tune from.

    Directions come from the anchors (`relative_rows`, `linear_rows`). The length of each row is that of the source's
    row, in root mean squares of the model's embeddings: norm(new) / (rms(target) sqrt(D')) = norm(old) / (rms(source)
    sqrt(D)), with the vectors that the models see (Gemma scales its embeddings).

    Args:
        prompt: `[P, D]`, tuned with `source`.
        source: The model that the prompt was tuned with.
        target: The model to convert to; its width D' may differ.
        method: `relative` or `linear`.
        top: Anchors that each relative representation keeps; all of them if there are fewer. `linear` uses all.

    Returns:
        A prompt `[P, D']` without key, start, scores and calibration. Its card names the source prompt as parent, and
        the source model, its fingerprint, the method and the number of anchors in the field `source`.

    Raises:
        PromptError: The prompt is an ensemble, or was not tuned with `source`.
        ModelError: The vocabularies share too few tokens to determine a row.

    Examples:
        >>> prompt = starter_library().get("sst2")  # doctest: +SKIP
        >>> start = convert(prompt, load_model(), load_model("gemma-3-270m"))  # doctest: +SKIP
        >>> tune(model, task, recipe, initial=start.value, parents=start.card.parents)  # doctest: +SKIP
    """
    prompt.require_single("a conversion")
    prompt.require_model(source.fingerprints, source.name)
    own, other = shared_tokens(source, target)
    before, after = source.token_vectors(), target.token_vectors()
    if method == "relative":
        _require_anchors(min(len(own), top), target.dim, source, target)
        rows = relative_rows(prompt.value, before[own], after[other], top)
    else:
        _require_anchors(len(own), source.dim, source, target)
        rows = linear_rows(prompt.value, before[own], after[other])
    lengths = prompt.value.square().mean(1, keepdim=True).sqrt() * (_rms(after) / _rms(before))
    value = rows * lengths * target.dim**0.5
    return SoftPrompt(value, _card(prompt, source, target, f"{method}, {len(own):,} shared tokens"))


def relative_rows(
    rows: Float[Tensor, "P D"],
    source_anchors: Float[Tensor, "N D"],
    target_anchors: Float[Tensor, "N E"],
    top: int = TOP_ANCHORS,
) -> Float[Tensor, "P E"]:
    """Returns the directions whose relative representations are most like those of `rows`.

    r = (cos(row, a_1), ..., cos(row, a_N)), of which the `top` largest are kept; y maximises the cosine between these
    and (cos(y, b_1), ..., cos(y, b_N)) at the same anchors (section 3.1). With unit anchors B, the second vector is
    B y / norm(y), and its cosine with r is largest at the least squares solution of B y = r. The paper's authors search
    y by Adam, with which 300 steps take longer than the solution and end before it.

    Args:
        rows: `[P, D]`.
        source_anchors: `[N, D]` the source model's embeddings of the shared tokens.
        target_anchors: `[N, E]` the target model's, in the same order.
        top: Cosines that are kept, at most N.

    Returns:
        `[P, E]` rows of length 1.
    """
    anchors = normalize(target_anchors, dim=1)
    cosines = normalize(rows, dim=1) @ normalize(source_anchors, dim=1).T
    kept, places = cosines.topk(min(top, cosines.shape[1]), dim=1)
    solved = [_least_squares(anchors[own], row[:, None])[:, 0] for row, own in zip(kept, places, strict=True)]
    return normalize(torch.stack(solved), dim=1)


def linear_rows(
    rows: Float[Tensor, "P D"], source_anchors: Float[Tensor, "N D"], target_anchors: Float[Tensor, "N E"]
) -> Float[Tensor, "P E"]:
    """Returns the directions of `rows` W, where W minimises the squared error of A W = B over the unit anchors A and B.

    Args:
        rows: `[P, D]`.
        source_anchors: `[N, D]` the source model's embeddings of the shared tokens.
        target_anchors: `[N, E]` the target model's, in the same order.

    Returns:
        `[P, E]` rows of length 1.
    """
    mapping = _least_squares(normalize(source_anchors, dim=1), normalize(target_anchors, dim=1))
    return normalize(normalize(rows, dim=1) @ mapping, dim=1)


def _least_squares(matrix: Float[Tensor, "N D"], wanted: Float[Tensor, "N E"]) -> Float[Tensor, "D E"]:
    """Returns the x that minimises the squared error of `matrix` x = `wanted`, by the normal equations.

    A ridge of 1e-5 of the mean eigenvalue keeps directions at zero that no row of `matrix` has. It is a hundred times
    the rounding error of the products, which are in float32 for speed; the solution is in float64.
    """
    gram, right = (matrix.T @ matrix).double(), (matrix.T @ wanted).double()
    gram.diagonal().add_(1e-5 * gram.diagonal().mean())
    solution: Tensor = torch.linalg.solve(gram, right)
    return solution.float()


def _rms(vectors: Float[Tensor, "V D"]) -> float:
    return float(vectors.square().mean().sqrt())


def _card(prompt: SoftPrompt, source: FrozenModel, target: FrozenModel, how: str) -> Card:
    """Returns the card of a converted prompt: what it says of the task stays, what was measured does not."""
    card = prompt.card
    return Card(
        name=f"{card.name}-converted",
        task=card.task,
        model=target.name,
        model_fingerprint=target.fingerprint,
        dtype=str(target.dtype).removeprefix("torch."),
        family=card.family,
        data_hash=card.data_hash,
        template=card.template,
        form=card.form,
        target=card.target,
        labels=card.labels,
        parents=[Parent(name=card.name, weight=1.0, hash=prompt.content_hash())],
        license=card.license,
        source=f"converted from {source.name} ({source.fingerprint}): {how}",
        notes="A start to tune from; it has no scores with this model.",
    )


def shared_tokens(source: FrozenModel, target: FrozenModel) -> tuple[list[int], list[int]]:
    """Returns the ids, in both models, of the tokens whose text both vocabularies have; see `token_texts`.

    Raises:
        ModelError: There is no such token.
    """
    own, other = token_texts(source), token_texts(target)
    shared = [text for text in own if text in other]
    if not shared:
        raise ModelError(
            f"The vocabularies of {source.name} and {target.name} have no token in common, and a prompt is converted "
            f"through common tokens. Tune a prompt for {target.name} from scratch."
        )
    return [own[text] for text in shared], [other[text] for text in shared]


def _require_anchors(found: int, needed: int, source: FrozenModel, target: FrozenModel) -> None:
    if found < needed:
        raise ModelError(
            f"{found} tokens of {source.name} and {target.name} can be used as anchors, and a conversion needs "
            f"at least {needed}, the width of the embeddings. Keep more of them (top), or tune a prompt for "
            f"{target.name} from scratch."
        )


def token_texts(model: FrozenModel) -> dict[str, int]:
    """Returns the text of every token of a vocabulary, and its id.

    A leading space is `Ġ` in byte-level vocabularies and `▁` in those of SentencePiece; here it is a space in both.
    Special and added tokens, single bytes (`<0x0A>`) and tokens that end within a character are left out. The first id
    counts if two tokens have one text.
    """
    added = model.tokenizer.get_added_vocab()
    vocabulary = sorted((i, token) for token, i in model.tokenizer.get_vocab().items() if token not in added)
    marks = Counter(token[:1] for _, token in vocabulary)
    text_of = _byte_level_text if marks["Ġ"] > marks["▁"] else _sentencepiece_text
    rows = model.embeddings.shape[0]
    texts: dict[str, int] = {}
    for i, token in vocabulary:
        text = text_of(token)
        if text and i < rows:
            texts.setdefault(text, i)
    return texts


def _sentencepiece_text(token: str) -> str | None:
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return None if is_byte else token.replace("▁", " ")


def _byte_level_text(token: str) -> str | None:
    """Returns the text of a token that spells its bytes in printable characters; None for parts of characters."""
    try:
        return bytes(_byte_of()[c] for c in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


@cache
def _byte_of() -> dict[str, int]:
    """Returns the byte that each character of a byte-level vocabulary (GPT-2) stands for.

    Printable bytes stand for themselves; the others follow from U+0100 on, in order.
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
