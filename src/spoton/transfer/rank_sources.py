"""Ranking the prompts of a library for a target task, by the similarity of keys.

The key of a prompt is its early checkpoint; the key of a new task is the prompt after as many steps of a probe
(SPoT, section 3.2). Which of the retrieved prompts is used, and how, is ``adapt.py``'s business.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spoton.errors import LibraryError, PromptError
from spoton.prompts.card import Card
from spoton.prompts.library import Entry, PromptLibrary
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.transfer.similarity import Metric, similarity


@dataclass(frozen=True)
class Retrieved:
    """One prompt of a library and how similar its key is to the target's.

    Attributes:
        name: Its name in the library.
        similarity: By the metric asked for.
        prompt: The prompt itself.
    """

    name: str
    similarity: float
    prompt: SoftPrompt

    def to_json(self) -> dict[str, Any]:
        """Name, similarity and what the card says of the source, as plain values."""
        card = self.prompt.card
        return {"name": self.name, "similarity": self.similarity, "task": card.task, "family": card.family}


def sources_for(
    libraries: Iterable[PromptLibrary],
    fingerprints: str | Sequence[str],
    *,
    task: str = "",
    data_hash: str = "",
    source: str = "",
) -> list[tuple[PromptLibrary, Entry]]:
    """The prompts that can be sources: of this model, with a key, and not of the target task itself.

    A name that stands in two libraries is taken from the first.

    Args:
        libraries: Where to look.
        fingerprints: Of the frozen model: one, or all that mean it.
        task: Name of the target task; its own prompts are left out, since finding them would be no transfer.
        data_hash: Hash of the target's rows; prompts tuned on the same rows are left out.
        source: Where the target's rows are from (`Task.source`). Two files of the same name are one task only if
            their content is the same.

    Raises:
        LibraryError: There is none; says how many prompts were left out, and why.
    """
    accepted = {fingerprints} if isinstance(fingerprints, str) else set(fingerprints)
    found: dict[str, tuple[PromptLibrary, Entry]] = {}
    left_out: Counter[str] = Counter()
    for library in libraries:
        for entry in library.list():
            card = entry.card
            if card.model_fingerprint not in accepted:
                left_out["of another model"] += 1
            elif (data_hash and card.data_hash == data_hash) or _same_rows(card, task, source):
                left_out["of the same task or the same rows"] += 1
            elif not entry.has_key:
                left_out["without a key"] += 1
            else:
                found.setdefault(entry.name, (library, entry))
        left_out["damaged"] += len(library.damaged)
    if not found:
        raise _no_source(left_out)
    return list(found.values())


def _same_rows(card: Card, task: str, source: str) -> bool:
    """Whether a prompt was tuned on rows of the target task: by the content of its file, else by its name."""
    if not all(text.startswith("file:") and "@" in text for text in (card.source, source)):
        return card.task == task
    return card.source.rpartition("@")[2] == source.rpartition("@")[2]


def _no_source(left_out: Counter[str]) -> LibraryError:
    """What to tell a user without any source: what there is instead, and how to get one.

    Args:
        left_out: Number of prompts that cannot be sources, by what they are.
    """
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common() if count)
    return LibraryError(
        f"No library holds a source prompt for this task and model.{f' Left out: {told}.' if told else ''} Tune one "
        "with `spoton tune TASK --out P` and `spoton library add P`, or use the embedded model, for which a starter "
        "library comes with spoton."
    )


def retrieve(
    key: Tensor, sources: Sequence[tuple[PromptLibrary, Entry]], k: int, metric: Metric = "average_tokens"
) -> list[Retrieved]:
    """The k sources whose keys are most similar to a target's key, most similar first.

    A damaged file is skipped, and told in its library's `damaged`.

    Args:
        key: ``[P, D]`` of the target task.
        sources: From `sources_for`.
        k: How many; fewer come back if there are fewer.
        metric: Which similarity.

    Raises:
        LibraryError: There is no source at all.
    """
    found = most_similar(key, _prompts_of(sources), k, metric)
    if not found:
        raise _no_source(Counter(damaged=len(sources)))
    return found


def _prompts_of(sources: Sequence[tuple[PromptLibrary, Entry]]) -> Iterator[tuple[str, SoftPrompt]]:
    """The prompts of entries; a damaged file is skipped, and noted in its library's `damaged`."""
    for library, entry in sources:
        try:
            yield entry.name, library.get(entry.name)
        except PromptError as error:  # a head can be whole, which is all that a listing reads
            library.damaged[entry.name] = str(error)


def most_similar(
    key: Tensor, prompts: Iterable[tuple[str, SoftPrompt]], k: int, metric: Metric = "average_tokens"
) -> list[Retrieved]:
    """The k prompts whose keys are most similar to a key, most similar first; ties go by name (SPoT, section 3.2).

    No more than k prompts are kept at a time.

    Args:
        key: ``[P, D]`` of the target task.
        prompts: Names and prompts, each with a key.
        k: How many; fewer come back if there are fewer.
        metric: Which similarity.

    Raises:
        LibraryError: A prompt has no key.
    """
    return heapq.nsmallest(k, _ranked(key, prompts, metric), key=lambda one: (-one.similarity, one.name))


def _ranked(key: Tensor, prompts: Iterable[tuple[str, SoftPrompt]], metric: Metric) -> Iterator[Retrieved]:
    for name, prompt in prompts:
        if prompt.key is None:
            raise LibraryError(
                f"{name} has no key, so it cannot be retrieved: its recipe ended before its key_step."
            )
        yield Retrieved(name, similarity(key, prompt.key, metric), prompt)
