"""The served prompts: those with a fingerprint of the model, as the libraries hold them now.

A folder has changed if the names, times or sizes of its files have, so a check is cheap and reads only changed files.
A library behind a URL is served from its mirror, so that no request waits for another host; `fetch` updates the mirror.
Prompts are values: a request keeps the one it began with, whatever happens to its file.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import SpotonError
from spoton.evaluation.many_prompts import label_tokens
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.prompts.library import PromptLibrary
from spoton.prompts.listing import Entry
from spoton.prompts.soft_prompt import SoftPrompt

_log = logging.getLogger(__name__)

_Signature = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ServedPrompt:
    """One prompt, ready to use.

    Attributes:
        name: Its name in requests.
        prompt: The prompt, without its key.
        content: Hash of its tensors.
        labels: Tokens of each label; None where answers are generated.
        direction: `[D]` mean token of its key, or of its value if it has no key; similarity compares these.
        path: Its file.
    """

    name: str
    prompt: SoftPrompt
    content: str
    labels: list[list[int]] | None
    direction: Tensor
    path: Path

    @property
    def card(self) -> Card:
        """Its card."""
        return self.prompt.card

    @property
    def members(self) -> list[tuple[str, Tensor]]:
        """Cache key and value `[P, D]` of each prompt: the members of an ensemble, else the prompt alone."""
        if not self.card.members:
            return [(self.content, self.value)]
        return [(f"{self.content}/{place}", value) for place, value in enumerate(self.prompt.values)]

    @property
    def value(self) -> Tensor:
        """`[P, D]`."""
        return self.prompt.value


@dataclass(frozen=True)
class Refused:
    """A prompt of a library that is not served.

    Attributes:
        name: Its name in the library.
        folder: The library.
        reason: Why it is not served.
    """

    name: str
    folder: str
    reason: str


class Roster:
    """The prompts of some libraries that belong to one model.

    Args:
        model: The frozen model.
        libraries: Libraries of prompts; the first that has a name wins.
        base: The model's own name in requests; no prompt may have it.

    Attributes:
        served: Served prompts by name, sorted.
        refused: The other prompts, with the reason.
        remote: The libraries behind URLs.

    Raises:
        LibraryError: A library behind a URL cannot be reached.
    """

    def __init__(self, model: FrozenModel, libraries: Sequence[PromptLibrary], base: str) -> None:
        self._model, self._base = model, base
        self.remote = [library for library in libraries if library.remote]
        for library in self.remote:
            library.refresh()
        self._libraries = [
            PromptLibrary(library.folder, readonly=True) if library in self.remote else library
            for library in libraries
        ]
        self._places = {library.folder: library.place for library in libraries}
        self._loaded: dict[Path, tuple[_Signature, ServedPrompt | str]] = {}
        self._seen: object = None
        self._lock = threading.Lock()
        self._checked = 0.0
        self.served: dict[str, ServedPrompt] = {}
        self.refused: list[Refused] = []
        self.refresh()

    def refresh(self, *, older_than: float = 0.0) -> bool:
        """Checks the libraries again; returns whether anything changed.

        Args:
            older_than: Checks only if the last check is at least this many seconds ago.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._checked < older_than:
                return False
            self._checked = now
            seen = [_files(library) for library in self._libraries]
            if seen == self._seen:
                return False
            self._read(seen)
            self._seen = seen
            return True

    def fetch(self) -> None:
        """Updates the mirrors of libraries behind URLs; one that cannot be reached is served as it was."""
        for library in self.remote:
            try:
                library.refresh()
            except SpotonError as error:
                _log.warning("Served as it was: %s", error)
        self.refresh()

    def _read(self, seen: Sequence[dict[str, _Signature]]) -> None:
        served: dict[str, ServedPrompt] = {}
        refused: list[Refused] = []
        loaded: dict[Path, tuple[_Signature, ServedPrompt | str]] = {}
        for library, files in zip(self._libraries, seen, strict=True):
            folder = self._places[library.folder]
            for entry in library.list():
                signature = files.get(entry.path.name, (0, 0, 0))
                known = self._loaded.get(entry.path)
                state = known[1] if known and known[0] == signature else self._load(library, entry)
                loaded[entry.path] = (signature, state)
                if isinstance(state, str):
                    refused.append(Refused(entry.name, folder, state))
                elif entry.name == self._base:
                    refused.append(
                        Refused(entry.name, folder, "it is called as the model itself; rename the file")
                    )
                elif entry.name in served:
                    other = self._places[served[entry.name].path.parent]
                    refused.append(
                        Refused(entry.name, folder, f"{other} has a prompt of that name and comes first")
                    )
                else:
                    served[entry.name] = state
            refused += [Refused(name, folder, reason) for name, reason in library.damaged.items()]
        self._loaded = loaded
        self.served, self.refused = dict(sorted(served.items())), refused

    def _load(self, library: PromptLibrary, entry: Entry) -> ServedPrompt | str:
        """Returns the prompt, or why it is not served."""
        card, model = entry.card, self._model
        if card.model_fingerprint not in model.fingerprints:  # as for `predict`: older ones identify it too
            return (
                f"tuned with {card.model} (fingerprint {card.model_fingerprint}); this server runs {model.name} "
                f"(fingerprint {model.fingerprint})"
            )
        if card.members and card.labels is None:
            return "an ensemble without labels votes on whole texts, which is not served; serve one of its prompts"
        try:
            whole = library.get(entry.name)
            labels = card.labels
            ids = None if labels is None else label_tokens(model, labels)
        except SpotonError as error:
            return str(error)
        similar_by = whole.value if whole.key is None else whole.key
        return ServedPrompt(
            name=entry.name,
            prompt=replace(whole, key=None),
            content=whole.content_hash(),
            labels=ids,
            direction=torch.nn.functional.normalize(similar_by.double().mean(dim=0), dim=0),
            path=entry.path,
        )


def _files(library: PromptLibrary) -> dict[str, _Signature]:
    """Returns the signature of a folder's state: time, size and inode of every file."""
    found: dict[str, _Signature] = {}
    with contextlib.suppress(FileNotFoundError):
        for path in library.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # removed since the folder was listed
                stat = path.stat()
                found[path.name] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return found
