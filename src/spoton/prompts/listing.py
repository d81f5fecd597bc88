"""What a library says of its prompts without reading their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from spoton.prompts.card import Card
from spoton.prompts.index import Head
from spoton.prompts.soft_prompt import read_header


class Identity(NamedTuple):
    """The model and rows of a prompt: four fields of its card."""

    fingerprint: str
    task: str
    data_hash: str
    source: str


@dataclass(frozen=True)
class Entry:
    """One prompt of a library, without its tensors.

    Attributes:
        name: Its name in the library: the file's name without `.safetensors`.
        file: The file's path, as a string; see `path`.
        length: P.
        dim: D.
        has_key: Whether it can be retrieved by similarity.
        size_bytes: Size of the file.
        known_card: Its card, or the card's JSON, which is parsed on first use.
        head: Its entry in the library's index; None in libraries without one.
    """

    name: str
    file: str
    length: int
    dim: int
    has_key: bool
    size_bytes: int
    known_card: Card | str
    head: Head | None = None

    @cached_property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)

    @cached_property
    def card(self) -> Card:
        """Its card."""
        known = self.known_card
        return Card.model_validate_json(known) if isinstance(known, str) else known

    @property
    def identity(self) -> Identity:
        """The model and rows of the prompt, without parsing a card that is not parsed yet."""
        if self.head is not None:
            return Identity(self.head.fingerprint, self.head.task, self.head.data_hash, self.head.source)
        card = self.card
        return Identity(card.model_fingerprint, card.task, card.data_hash, card.source)

    @property
    def searchable(self) -> str:
        """Its name, task, family, labels, source and notes, in lower case."""
        card = self.card
        parts = [self.name, card.task, card.family, *(card.labels or []), card.source, card.notes]
        return " ".join(parts).lower()


class Listing(list[Entry]):
    """The prompts of a library, sorted by name.

    Attributes:
        damaged: Reason by name, for the files that were skipped.
    """

    def __init__(self, entries: Iterable[Entry] = (), damaged: Mapping[str, str] | None = None) -> None:
        super().__init__(entries)
        self.damaged = dict(damaged or {})


@dataclass(frozen=True)
class Verification:
    """The result of `PromptLibrary.verify`.

    Attributes:
        ok: Names of the intact prompts.
        damaged: Reason by name, for the others.
    """

    ok: list[str]
    damaged: dict[str, str]


def read_entry(path: Path) -> Entry:
    """Reads the head of a prompt file.

    Raises:
        PromptNotFoundError: There is no such file.
        PromptError: It is damaged.
    """
    header = read_header(path)
    return Entry(
        name=path.stem,
        file=str(path),
        length=header.length,
        dim=header.dim,
        has_key=header.has_key,
        size_bytes=header.size_bytes,
        known_card=header.card,
    )
