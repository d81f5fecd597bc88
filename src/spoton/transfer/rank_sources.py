"""Ranking the prompts of a library for a target task, by the similarity of keys.

The key of a prompt is its early checkpoint; the key of a new task is the prompt after as many steps of a probe
(SPoT, section 3.2). Which of the retrieved prompts is used, and how, is ``adapt.py``'s business.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from spoton.errors import LibraryError, PromptError
from spoton.prompts.index import LibraryIndex, cosines
from spoton.prompts.library import Entry, Identity, PromptLibrary
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.transfer.similarity import Metric, similarity

# How far a similarity from an index may be from that of the prompt itself: float32 against float64.
_ROUNDING = 1e-4


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
        listing = library.list()
        for entry in listing:
            if entry.identity.fingerprint not in accepted:
                left_out["of another model"] += 1
            elif _same_rows(entry.identity, task, data_hash, source):
                left_out["of the same task or the same rows"] += 1
            elif not entry.has_key:
                left_out["without a key"] += 1
            else:
                found.setdefault(entry.name, (library, entry))
        left_out["damaged"] += len(listing.damaged)
    if not found:
        raise _no_source(left_out)
    return list(found.values())


def _same_rows(found: Identity, task: str, data_hash: str, source: str) -> bool:
    """Whether a prompt was tuned on rows of the target task: by hash, the file's content, or name."""
    if data_hash and found.data_hash == data_hash:
        return True
    if not all(text.startswith("file:") and "@" in text for text in (found.source, source)):
        return found.task == task
    return found.source.rpartition("@")[2] == source.rpartition("@")[2]


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


class Ranking(list[Retrieved]):
    """Retrieved prompts, most similar first.

    Attributes:
        damaged: Name to reason of the files that turned out damaged when they were read.
    """

    def __init__(self, prompts: Iterable[Retrieved], damaged: dict[str, str]) -> None:
        super().__init__(prompts)
        self.damaged = damaged


def retrieve(
    key: Tensor, sources: Sequence[tuple[PromptLibrary, Entry]], k: int, metric: Metric = "average_tokens"
) -> Ranking:
    """The k sources whose keys are most similar to a target's key, most similar first.

    Damaged files are skipped, and told in the ranking's `damaged`. In a large library the cosines of mean tokens come
    from its index, and only what is returned is read; else every prompt is read once, and k of them are kept.

    Args:
        key: ``[P, D]`` of the target task.
        sources: From `sources_for`.
        k: How many; fewer come back if there are fewer.
        metric: Which similarity.

    Raises:
        LibraryError: There is no source at all.
    """
    bounds = _cosines(key, sources) if metric == "average_tokens" else [math.inf] * len(sources)
    damaged: dict[str, str] = {}
    best: list[Retrieved] = []
    for place in sorted(range(len(sources)), key=lambda place: -bounds[place]):
        library, entry = sources[place]
        if len(best) >= k and bounds[place] < best[-1].similarity - _ROUNDING:
            break
        try:
            prompt = library.get(entry.name)
        except PromptError as error:  # a head can be whole, which is all that a listing reads
            damaged[entry.name] = str(error)
            continue
        assert prompt.key is not None
        one = Retrieved(entry.name, similarity(key, prompt.key, metric), prompt)
        if math.isfinite(bounds[place]) and abs(one.similarity - bounds[place]) > _ROUNDING:
            library.index.clear()  # it says something else than the prompt, so it is damaged
            return retrieve(key, [(place, replace(one, head=None)) for place, one in sources], k, metric)
        best = sorted([*best, one], key=lambda one: (-one.similarity, one.name))[:k]
    if not best:
        raise _no_source(Counter(damaged=len(sources)))
    return Ranking(best, damaged)


def _cosines(key: Tensor, sources: Sequence[tuple[PromptLibrary, Entry]]) -> list[float]:
    """Similarity of every source by its library's index; infinity where there is none, so that it is read."""
    found = [math.inf] * len(sources)
    by_index: dict[LibraryIndex, list[int]] = {}
    for place, (library, entry) in enumerate(sources):
        if entry.head is not None and entry.dim == key.shape[1]:
            by_index.setdefault(library.index, []).append(place)
    for index, places in by_index.items():
        heads = [head for place in places if (head := sources[place][1].head) is not None]
        for place, cosine in zip(places, cosines(key, index, heads).tolist(), strict=True):
            found[place] = cosine if math.isfinite(cosine) else math.inf
    return found


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
