"""From examples to token ids. This file never runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from spoton.errors import DataError
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.tasks.task import Example

MAX_INPUT_TOKENS = 256
"""Default length of the longest input: of a recipe, and of an evaluation without a recipe."""


@dataclass(frozen=True)
class Encoded:
    """Examples as token ids.

    Attributes:
        inputs: Input tokens of each example.
        targets: Target tokens of each example.
        cut: How many tokens each input lost from its middle; 0 for most.
    """

    inputs: list[list[int]]
    targets: list[list[int]]
    cut: list[int]

    @property
    def truncated(self) -> int:
        """How many inputs lost their middle."""
        return sum(lost > 0 for lost in self.cut)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Returns the examples at `rows` as one batch."""
        return Batch([self.inputs[row] for row in rows], [self.targets[row] for row in rows])

    def part(self, rows: Sequence[int]) -> Encoded:
        """Returns the examples at `rows`."""
        return Encoded(
            [self.inputs[row] for row in rows],
            [self.targets[row] for row in rows],
            [self.cut[row] for row in rows],
        )


def encode(
    model: FrozenModel,
    examples: Sequence[Example],
    *,
    end: bool,
    prompt_length: int,
    max_input_tokens: int,
    labels: Sequence[str] | None = None,
    generated: int = 0,
) -> Encoded:
    """Tokenizes examples and shortens inputs that are too long.

    A long input loses its middle: it keeps its first three quarters and the end, where a template asks its question.

    Args:
        model: The model whose tokens are used.
        examples: The examples to encode.
        end: Whether targets of a decoder-only model carry the end token (open targets need it to stop).
        prompt_length: P, to stay within the model's positions.
        max_input_tokens: Length of the longest input to keep.
        labels: Label words that will follow the inputs, whether or not an example has them as target.
        generated: Most tokens that will be generated after an input.

    Raises:
        DataError: A target leaves no room for its input in the model's context, an input has no token, two labels have
            the same tokens, or a text holds half of a character.
    """
    _require_whole_characters("Example", [f"{example.input} {example.target}" for example in examples])
    targets = [model.encode_target(example.target, end=end) for example in examples]
    words = [model.encode_target(label, end=end) for label in labels or ()]
    _require_different(model, labels or (), words)
    room = room_for_input(model, [*targets, *words], prompt_length, max_input_tokens, generated=generated)
    return encoded_in(model, examples, targets, room)


def room_for_input(
    model: FrozenModel,
    targets: Sequence[Sequence[int]],
    prompt_length: int,
    max_input_tokens: int,
    *,
    generated: int = 0,
) -> int:
    """Returns the tokens of the longest input that fits before any of the given targets, or before generated tokens.

    Raises:
        DataError: Fewer than 8 tokens are left.
    """
    longest = max(map(len, targets), default=0)
    room = max_input_tokens
    if model.max_length is not None:
        room = min(room, model.max_length - prompt_length - max(longest, generated))
    if room < 8:
        found, step = f"The longest target has {longest} tokens", "Shorten the labels or the prompt."
        if generated > longest:
            found, step = f"An answer may have {generated} tokens", "Ask for fewer (--max-tokens)."
        raise DataError(
            f"{found}; with {prompt_length} prompt tokens that leaves {max(room, 0)} of the {model.max_length} "
            f"positions of {model.name} for an input. {step}"
        )
    return room


def encoded_in(
    model: FrozenModel, examples: Sequence[Example], targets: list[list[int]], room: int
) -> Encoded:
    """Returns examples whose targets are tokens already, with inputs of at most `room` tokens.

    Raises:
        DataError: An input has no token.
    """
    inputs, cut = [], []
    for number, example in enumerate(examples, start=1):
        ids = model.encode_input(example.input)
        if not ids:
            raise DataError(
                f"Example {number} has an empty input after its template was filled. Remove such rows."
            )
        cut.append(max(0, len(ids) - room))
        if len(ids) > room:
            head = room * 3 // 4
            ids = ids[:head] + ids[head - room :]
        inputs.append(ids)
    return Encoded(inputs, targets, cut)


def _require_whole_characters(what: str, texts: Sequence[str]) -> None:
    """Refuses lone surrogates, which JSON and the command line accept but no tokenizer reads."""
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{what} {number} holds half of a character (U+{ord(text[error.start]):04X}), such as a cut emoji "
                "leaves. Repair it, or remove its row."
            ) from error


def _require_different(model: FrozenModel, labels: Sequence[str], words: Sequence[Sequence[int]]) -> None:
    """Refuses labels that the model cannot tell apart: their probabilities would always be equal."""
    known: dict[tuple[int, ...], str] = {}
    for label, ids in zip(labels, words, strict=True):
        other = known.setdefault(tuple(ids), label)
        if other != label:
            tokens = " ".join(map(str, model.tokenizer.convert_ids_to_tokens(list(ids))))
            raise DataError(
                f"{model.name} cannot tell the labels {other!r} and {label!r} apart: both have the tokens {tokens}. "
                "Use other words for them, or a model whose vocabulary has these."
            )


def unknown_in_labels(model: FrozenModel, labels: Sequence[str] | None) -> list[str]:
    """Returns the labels with a token that the model's vocabulary lacks, so that part of the label is lost.

    Raises:
        DataError: A label holds half of a character.
    """
    _require_whole_characters("Label", labels or ())
    unknown = model.tokenizer.unk_token_id
    if (
        unknown is None or unknown == model.tokenizer.eos_token_id
    ):  # GPT-2 has one token for both, and needs neither
        return []
    return [label for label in labels or () if unknown in model.encode_target(label, end=False)]


def unknown_sentence(labels: Sequence[str]) -> str:
    """Returns the message about labels from `unknown_in_labels`."""
    return (
        f"The model's vocabulary lacks part of the label {', '.join(map(repr, labels))}, which it sees as an unknown "
        "token. Use other words, or another model."
    )


def needs_end(model: FrozenModel, labels: Sequence[str] | None) -> bool:
    """Returns whether targets of a decoder-only model carry the end token.

    Open targets do, so that generation stops. Label words do only if one is a prefix of another ("yes", "yes and no"):
    without an end token the shorter one would never be less likely.

    Raises:
        DataError: A label holds half of a character.
    """
    if labels is None:
        return True
    _require_whole_characters("Label", labels)
    # In this order, what begins with a label follows it directly.
    ids = sorted(model.encode_target(label, end=False) for label in labels)
    return any(after[: len(label)] == label for label, after in pairwise(ids))
