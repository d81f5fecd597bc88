"""The prompts that can be sources of a target, and the result of a ranking.

`ranking/` ranks them; `combining/` makes starts from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from spoton.arguments import require_kind, shown
from spoton.errors import LibraryError
from spoton.prompts.card import Parent
from spoton.prompts.library import PromptLibrary
from spoton.prompts.listing import Entry, Identity
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.catalog import tasks_with_texts_of
from spoton.tasks.mixture import names_within

SourcePrompt = tuple[PromptLibrary, Entry]
"""A prompt of a library, not read yet."""

Evidence = Literal["key", "displacement", "trial"]


@dataclass(frozen=True)
class Retrieved:
    """One prompt and the numbers that rank it.

    Attributes:
        name: Its name in the library.
        similarity: Similarity of its key (or displacement) to the target's, by the given metric; in a trial, the share
            of the labels' entropy (for open targets, of the loss) that the prompt explains. Methods that weight
            sources use it.
        prompt: The prompt itself.
        loss: In a trial: loss on the target's rows in nats per example, per token if targets are open; else None.
        by: What was compared.
        is_source: False for the target's own text, which a trial compares sources with.
    """

    name: str
    similarity: float
    prompt: SoftPrompt
    loss: float | None = None
    by: Evidence = "key"
    is_source: bool = True

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers that rank it, and the card's facts about the source, as plain values."""
        card = self.prompt.card
        plain = {"name": self.name, "similarity": self.similarity, "task": card.task, "family": card.family}
        if self.by != "key":
            plain["by"] = self.by
        return plain if self.loss is None else plain | {"loss": self.loss}

    def parents(self, weight: float) -> tuple[Parent, ...]:
        """Returns the source as a parent on a card; nothing for the target's own text."""
        if not self.is_source:
            return ()
        similarity = None if self.by == "trial" else self.similarity
        return (
            Parent(name=self.name, weight=weight, similarity=similarity, hash=self.prompt.content_hash()),
        )


@dataclass(frozen=True)
class Cost:
    """The cost of a ranking.

    Attributes:
        steps: In optimizer steps of the recipe, rounded up.
        passes: Passes through the model without a gradient.
        tokens: Tokens in these passes.
    """

    steps: int = 0
    passes: int = 0
    tokens: int = 0


class Ranking(list[Retrieved]):
    """Retrieved prompts, best first.

    Attributes:
        damaged: Reason by name, for the files that turned out damaged when they were read.
        cost: The cost, apart from the target's key.
        notes: What a user should know about it.
    """

    def __init__(
        self,
        prompts: Iterable[Retrieved],
        damaged: dict[str, str],
        cost: Cost | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(prompts)
        self.damaged, self.cost, self.notes = damaged, cost or Cost(), tuple(notes)


def sources_for(
    libraries: Iterable[PromptLibrary],
    fingerprints: str | Sequence[str],
    *,
    task: str = "",
    data_hash: str = "",
    source: str = "",
    need_key: bool = True,
) -> list[SourcePrompt]:
    """Returns the prompts that can be sources: of this model, with a key, and not of the target task itself.

    Prompts of tasks that have texts in common with the target (SST-2 and Rotten Tomatoes; the catalog says which) are
    left out too, since they know rows that the target is tested on. A mixture counts as all of its members.

    A name that occurs in two libraries is taken from the first.

    Args:
        libraries: The libraries to search.
        fingerprints: Fingerprints of the frozen model: one, or all that identify it.
        task: Name of the target task; its own prompts are left out, since using them would not be transfer.
        data_hash: Hash of the target's rows; prompts tuned on the same rows are left out.
        source: Origin of the target's rows (`Task.source`). Two files of the same name are one task only if their
            content is the same.
        need_key: Whether prompts without a key are left out; a trial needs none.

    Raises:
        LibraryError: There is no source; the message says how many prompts were left out, and why. Or `libraries` is
            not a list of libraries.
    """
    libraries = _require_libraries(libraries)
    accepted = {fingerprints} if isinstance(fingerprints, str) else set(fingerprints)
    found: dict[str, SourcePrompt] = {}
    left_out: Counter[str] = Counter()
    own = _of_catalog(task, source)
    with_same_texts = own.union(*map(tasks_with_texts_of, own))
    for library in libraries:
        listing = library.list()
        for entry in listing:
            theirs = _of_catalog(entry.identity.task, entry.identity.source)
            if entry.identity.fingerprint not in accepted:
                left_out["of another model"] += 1
            elif same_rows(entry.identity, task, data_hash, source) or theirs & own:
                left_out["of the same task or the same rows"] += 1
            elif theirs & with_same_texts:
                left_out["of a task with the same texts"] += 1
            elif need_key and not entry.has_key:
                left_out["without a key"] += 1
            elif not entry.has_key and entry.card.members:
                left_out["an ensemble"] += 1
            else:
                found.setdefault(entry.name, (library, entry))
        left_out["damaged"] += len(listing.damaged)
    if not found:
        raise no_source(left_out)
    return list(found.values())


def _require_libraries(libraries: Iterable[PromptLibrary]) -> list[PromptLibrary]:
    advice = "a list of libraries, such as [spoton.PromptLibrary('prompts'), spoton.starter_library()]"
    if isinstance(libraries, str) or not isinstance(libraries, Iterable):
        raise LibraryError(f"libraries is {shown(libraries)}; expected {advice}.")
    opened = list(libraries)
    for library in opened:
        require_kind(library, PromptLibrary, "One of the libraries", LibraryError, advice)
    return opened


def reread(sources: Sequence[SourcePrompt]) -> list[SourcePrompt]:
    """Returns the same sources without their index entries, so that their files are read."""
    return [(library, replace(entry, head=None)) for library, entry in sources]


def same_rows(found: Identity, task: str, data_hash: str, source: str) -> bool:
    """Returns whether a prompt was tuned on rows of the target task: by hash, the file's content, or name."""
    if data_hash and found.data_hash == data_hash:
        return True
    if not all(is_of_file(text) and "@" in text for text in (found.source, source)):
        return found.task == task
    return found.source.rpartition("@")[2] == source.rpartition("@")[2]


def same_texts(found: Identity, task: str, source: str) -> bool:
    """Returns whether a task of the catalog has texts in common with the target, another task of the catalog."""
    if is_of_file(found.source) or is_of_file(source):
        return False
    return found.task in tasks_with_texts_of(task)


def _of_catalog(task: str, source: str) -> frozenset[str]:
    """Returns the tasks of the catalog whose rows a task has: a mixture's members, itself, or none for a file."""
    return frozenset() if is_of_file(source) else names_within(task)


def is_of_file(source: str) -> bool:
    """Returns whether rows come from a user's own file, which may have the name of a task in the catalog."""
    return source.startswith("file:")


def no_source(left_out: Counter[str]) -> LibraryError:
    """Returns the error for a user without any source: the prompts there are instead, and how to get a source.

    Args:
        left_out: Number of prompts that cannot be sources, by reason.
    """
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common() if count)
    return LibraryError(
        f"No library holds a source prompt for this task and model.{f' Left out: {told}.' if told else ''} Tune one "
        "with `spoton tune TASK --out P` and `spoton library add P`, or use the embedded model, for which a starter "
        "library comes with spoton."
    )
