"""The soft prompt: a plain value, and the one file that holds it.

A prompt file is a safetensors file with the tensors `value` and, if known, `key` and `start`. Its metadata has one
entry, `spoton`: JSON with the format's name, a checksum, and the card. The same prompt always gives the same bytes. A
tensor whose numbers all are numbers of float16 is written in float16, which takes half the space and loses nothing.

This module knows nothing of models: it compares fingerprints and never computes one. It also does not tune, choose or
combine prompts.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from spoton.arguments import require_kind, shown
from spoton.errors import PromptError, PromptNotFoundError
from spoton.fields import sentence
from spoton.files import atomic_write, sha256_of_text
from spoton.parsing import MalformedError, parse_json
from spoton.prompts.card import Card
from spoton.prompts.prompt_header import FileHead, read_head
from spoton.reading import opened, read_bytes, reason, size_of
from spoton.shapes import Float

FORMAT = "spoton-prompt-1"

_LARGEST = 4 * 2**30  # bytes of a file; the longest prompt of the largest models has a tenth of it


@dataclass(frozen=True, eq=False, repr=False)
class SoftPrompt:
    """A tuned prompt: P virtual tokens in the embedding space of one frozen model.

    Tensors are copied to float32 on the CPU, so a prompt does not change when the tensor it was made from is tuned
    further.

    Attributes:
        value: `[P, D]` the prompt to use: the best checkpoint.
        card: Its provenance.
        key: `[Q, D]` the task embedding: an early checkpoint, by which the prompt is retrieved, if known.
        start: `[Q, D]` the prompt before its first step, if known; key minus start is the effect of the task on it.

    Raises:
        PromptError: A tensor is not a finite matrix with at least one row, key and value differ in D, or the card is
            not a card.

    Examples:
        >>> card = Card(name="news", task="news_sentiment", model="smollm2-135m", model_fingerprint="9f2c")
        >>> prompt = SoftPrompt(torch.zeros(20, 576), card)
        >>> prompt.length, prompt.dim
        (20, 576)
        >>> SoftPrompt.load(prompt.save("news.safetensors")).card == card
        True
    """

    value: Tensor
    card: Card
    key: Tensor | None = None
    start: Tensor | None = None

    def __post_init__(self) -> None:
        require_kind(self.card, Card, "The prompt's card", PromptError, "a card. Make one: spoton.Card(...)")
        object.__setattr__(self, "value", _matrix("value", self.value))
        rows = sum(member.length for member in self.card.members)
        if self.card.members and rows != self.value.shape[0]:
            raise PromptError(
                f"The card names prompts of {rows} rows in all, and the value has {self.value.shape[0]}. Make the "
                "ensemble anew."
            )
        for name in ("key", "start"):
            given = getattr(self, name)
            if given is None:
                continue
            object.__setattr__(self, name, _matrix(name, given))
            if given.shape[1] != self.dim:
                raise PromptError(
                    f"The {name} has dimension {given.shape[1]} and the value {self.dim}; expected rows of one "
                    "embedding space. Take both from the same tuning run."
                )

    def __repr__(self) -> str:
        """Returns what it is, without its numbers, which fill pages of a notebook."""
        card = self.card
        return (
            f"SoftPrompt(name={card.name!r}, task={card.task!r}, model={card.model!r}, length={self.length}, "
            f"dim={self.dim}, has_key={self.key is not None})"
        )

    @property
    def values(self) -> list[Float[Tensor, "_ {self.dim}"]]:
        """The prompts `[P_k, D]` that are run: those of an ensemble, else the value alone."""
        lengths = [member.length for member in self.card.members]
        return list(torch.split(self.value, lengths)) if lengths else [self.value]

    def require_single(self, purpose: str) -> None:
        """Refuses an ensemble where one prompt is needed.

        Args:
            purpose: The purpose it is needed for, as a noun.

        Raises:
            PromptError: It is an ensemble; the message names its prompts.
        """
        if self.card.members:
            names = ", ".join(member.name for member in self.card.members)
            raise PromptError(
                f"{self.card.name} is an ensemble of {names}; {purpose} needs one prompt, and several do not collapse "
                "into one. Use one of these."
            )

    @property
    def length(self) -> int:
        """P, the number of virtual tokens of the value."""
        return self.value.shape[0]

    @property
    def dim(self) -> int:
        """D, the dimension of the model's embeddings."""
        return self.value.shape[1]

    def content_hash(self) -> str:
        """Returns the identity of the prompt without its card: 16 hex digits over shapes and bytes of its tensors."""
        return _hash_of(self._tensors())[:16]

    def require_model(self, fingerprints: str | Sequence[str], model_name: str) -> None:
        """Refuses a model that the prompt was not tuned with.

        Args:
            fingerprints: Fingerprint of the model about to be used, or all that identify it, its own first.
            model_name: Its name.

        Raises:
            PromptError: The card has none of them; the message names both models.
        """
        card, accepted = self.card, [fingerprints] if isinstance(fingerprints, str) else fingerprints
        if card.model_fingerprint not in accepted:
            raise PromptError(
                f"Prompt {card.name!r} was tuned with {card.model} (fingerprint {card.model_fingerprint}) "
                f"and works with no other, but the model in use is {model_name} (fingerprint {accepted[0]}). "
                f"Use {card.model}, or tune a prompt for {model_name}."
            )

    def halved(self) -> Self:
        """Returns the prompt with every number rounded to float16, so that its file takes half the space.

        The rounding is at most 0.05 % of a number. It makes another prompt: `content_hash` differs.

        Raises:
            PromptError: A number is beyond the range of float16.
        """
        halves: dict[str, Any] = {name: tensor.half() for name, tensor in self._tensors().items()}
        if beyond := [name for name, half in halves.items() if not half.isfinite().all()]:
            raise PromptError(
                f"Numbers beyond 65,504 in {', '.join(beyond)} have no float16. Keep the prompt as it is."
            )
        return replace(self, **halves)

    def to_bytes(self) -> bytes:
        """Returns the prompt file's content."""
        tensors = {name: _smallest(tensor) for name, tensor in self._tensors().items()}
        card = self.card.model_dump(mode="json")
        record = {"format": FORMAT, "checksum": _checksum(card, tensors), "card": card}
        # A single entry: safetensors writes several in random order, so no two files would be equal.
        return safetensors.torch.save(tensors, metadata={"spoton": json.dumps(record, ensure_ascii=False)})

    def save(self, path: Path | str) -> Path:
        """Writes the prompt to one file, atomically, replacing any existing file.

        Returns:
            The path written.

        Raises:
            SpotonError: The file cannot be written; no partial file is left behind.
        """
        path = Path(path)
        atomic_write(path, self.to_bytes())
        return path

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a prompt file and checks every bit of it.

        Raises:
            PromptError: The file is missing, damaged, truncated, or not a prompt file.
        """
        path = Path(path)
        try:
            data = read_bytes(path, most=_LARGEST)
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls.from_bytes(data, path)

    @classmethod
    def from_bytes(cls, data: bytes, source: Path | str) -> Self:
        """Reads the content of a prompt file and checks every bit of it.

        Args:
            data: The result of `to_bytes`.
            source: Name of the content in errors.

        Raises:
            PromptError: The content is damaged, truncated, or not a prompt file.
        """
        path = Path(source)
        try:
            head = read_head(io.BytesIO(data), len(data))
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        record = _read_record(path, head)
        card = _read_card(path, record)
        _read_shape(path, head)
        try:
            tensors = safetensors.torch.load(data)
        except SafetensorError as error:
            raise _damaged(path, str(error)) from error
        if record.get("checksum") != _checksum(record["card"], tensors):
            raise _damaged(path, "its content does not match its checksum")
        return cls(tensors["value"], card, tensors.get("key"), tensors.get("start"))

    def _tensors(self) -> dict[str, Tensor]:
        named = {"key": self.key, "start": self.start, "value": self.value}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


@dataclass(frozen=True)
class Header:
    """The header of a prompt file, read without its tensors.

    Attributes:
        card: The prompt's card.
        length: P.
        dim: D.
        has_key: Whether the file holds a key.
        size_bytes: Size of the file.
    """

    card: Card
    length: int
    dim: int
    has_key: bool
    size_bytes: int


def read_header(path: Path) -> Header:
    """Reads the card and shape of a prompt file. The tensors are neither read nor checked.

    Raises:
        PromptError: The file is missing, truncated, or not a prompt file.
    """
    try:
        with opened(path) as file:
            size = size_of(file)
            head = read_head(file, size)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    card = _read_card(path, _read_record(path, head))
    length, dim = _read_shape(path, head)
    return Header(card, length, dim, has_key="key" in head.tensors, size_bytes=size)


def resize_prompt(value: Float[Tensor, "P D"], length: int) -> Float[Tensor, "{length} D"]:
    """Resizes a prompt, keeping every row as it was learned.

    A shorter prompt is the first `length` rows; a longer one repeats the rows from the start. No row is averaged or
    interpolated: virtual tokens are nearly orthogonal, and no mean of two was ever tuned.

    Args:
        value: `[P, D]`.
        length: The wanted number of rows, at least 1.

    Returns:
        `[length, D]`, a copy.

    Raises:
        PromptError: `length` is less than 1.
    """
    if length < 1:
        raise PromptError(f"A prompt of length {length} was asked for. Choose a length of at least 1.")
    return value[torch.arange(length, device=value.device) % value.shape[0]]


def _matrix(name: str, tensor: object) -> Float[Tensor, "P D"]:
    if not isinstance(tensor, Tensor):
        raise PromptError(
            f"The prompt's {name} is {shown(tensor)}; expected a tensor [P, D]. Make one: torch.as_tensor(...)"
        )
    if tensor.dim() != 2 or 0 in tensor.shape or not tensor.is_floating_point():
        raise PromptError(
            f"The prompt's {name} has shape {list(tensor.shape)} and type {tensor.dtype}; expected floating "
            "point numbers [P, D], P and D at least 1. Pass one row per virtual token."
        )
    copy = tensor.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not copy.isfinite().all():
        raise PromptError(
            f"The prompt's {name} holds numbers that are not finite in float32, so its tuning diverged. "
            "Tune again with a smaller learning rate."
        )
    return copy


def _smallest(tensor: Tensor) -> Tensor:
    """Returns float32 numbers in float16 if that keeps every one of them."""
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _hash_of(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} ".encode())
        digest.update(tensor.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _checksum(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    # Over the card as written, not as parsed: fields that later versions add must not invalidate today's files.
    return sha256_of_text([json.dumps(card, sort_keys=True), _hash_of(tensors)])


def _unreadable(path: Path, error: OSError) -> PromptError:
    if isinstance(error, FileNotFoundError):
        return PromptNotFoundError(f"There is no prompt file {path}. Check the path.")
    return PromptError(f"Cannot read {path}: {reason(error)}. Give the path of a readable prompt file.")


def _read_record(path: Path, head: FileHead) -> dict[str, Any]:
    text = head.metadata.get("spoton")
    if text is None:
        raise PromptError(
            f"{path} is a safetensors file without a card, so it was not written by spoton. "
            "Give a prompt file, or import the tensor with a card of its own."
        )
    try:
        record = parse_json(text)
    except MalformedError as error:
        raise _damaged(path, f"its card is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else record
        raise PromptError(
            f"{path} has format {found!r}; expected {FORMAT!r}. Upgrade spoton, or fetch it again."
        )
    return record


def _read_card(path: Path, record: Mapping[str, Any]) -> Card:
    try:
        return Card.model_validate(record.get("card"))
    except ValidationError as error:
        raise PromptError(
            f"{path} has a card that cannot be used: {sentence(error.errors())} "
            "Upgrade spoton if a newer version wrote it; otherwise fetch or tune the prompt again."
        ) from error


def _read_shape(path: Path, head: FileHead) -> tuple[int, int]:
    """Returns P and D of the value, after checking the set of tensors, their type and their shapes."""
    tensors = head.tensors
    if "value" not in tensors or not tensors.keys() <= {"value", "key", "start"}:
        raise _damaged(
            path, f"it holds the tensors {sorted(tensors)[:5]}, expected value, perhaps key and start"
        )
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    matrices = all(len(shape) == 2 and min(shape) > 0 for shape in shapes.values())
    if not matrices or len({shape[1] for shape in shapes.values()}) != 1:
        raise _damaged(path, f"its tensors have shapes {shapes}, expected [P, D] with one D")
    if not {tensor.dtype for tensor in tensors.values()} <= {"F16", "F32"}:
        raise _damaged(path, "its tensors are neither float32 nor float16")
    length, dim = shapes["value"]
    return length, dim


def _damaged(path: Path, reason: str) -> PromptError:
    return PromptError(f"{path} is damaged or not a prompt file: {reason}. Fetch or tune the prompt again.")
