"""Ranking sources by the similarity of keys, or of displacements (`displacement.py`).

The key of a prompt is its early checkpoint; the key of a new task is the prompt after the same number of probe steps
(SPoT, section 3.2). `combining/` decides which of the retrieved prompts is used, and how.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from spoton.arguments import is_count, require_kind, shown
from spoton.errors import LibraryError, PromptError
from spoton.prompts.index import LibraryIndex, cosines
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float
from spoton.transfer.ranking.displacement import displacement
from spoton.transfer.similarity import Similarity, similarity
from spoton.transfer.sources import Ranking, Retrieved, SourcePrompt, no_source, reread

# Largest difference between the similarity from an index and that from the prompt: float32 against float64.
_ROUNDING = 1e-4


def retrieve(
    key: Float[Tensor, "P D"],
    sources: Sequence[SourcePrompt],
    k: int,
    metric: Similarity = "average_tokens",
    *,
    start: Float[Tensor, "P D"] | None = None,
) -> Ranking:
    """Returns the k sources whose keys are most similar to a target's key, most similar first.

    Damaged files are skipped and listed in the ranking's `damaged`. In a large library the cosines of mean tokens come
    from its index, and only the returned prompts are read. Otherwise every prompt is read once, and k of them are kept.

    Args:
        key: `[P, D]` of the target task.
        sources: Sources from `sources_for`.
        k: Largest number of sources to return.
        metric: The similarity.
        start: `[P, D]` start of the target's key; displacements are then compared instead of keys. Sources without a
            known start are compared by key and come after all others, since keys are more alike than displacements
            whatever was learned; the ranking's notes say so.

    Raises:
        LibraryError: There is no source, or `sources` are not from `sources_for`.
        PromptError: `key` is not a matrix, or `k` is below 1.
    """
    _require_question(key, sources, k)
    wanted = "key" if start is None else "displacement"
    by_index = metric == "average_tokens"
    bounds = _cosines(key, sources, start) if by_index else [math.inf] * len(sources)
    damaged: dict[str, str] = {}
    best: list[Retrieved] = []
    plain = 0
    for place in sorted(range(len(sources)), key=lambda place: -bounds[place]):
        library, entry = sources[place]
        last = best[-1] if len(best) >= k else None
        if last and last.by == wanted and bounds[place] < last.similarity - _ROUNDING:
            break
        try:
            prompt = library.get(entry.name)
        except PromptError as error:  # a listing reads only the header, which can be intact in a damaged file
            damaged[entry.name] = str(error)
            continue
        found = _compared(entry.name, key, start, prompt, metric)
        plain += start is not None and found.by == "key"
        if math.isfinite(bounds[place]) and abs(found.similarity - bounds[place]) > _ROUNDING:
            library.index.clear()  # the index contradicts the prompt, so it is damaged
            return retrieve(key, reread(sources), k, metric, start=start)
        best = sorted([*best, found], key=lambda one: (one.by != wanted, -one.similarity, one.name))[:k]
    if not best:
        raise no_source(Counter(damaged=len(sources)))
    notes = [f"{plain} of the sources do not know their start; they come last, ranked by their plain keys."]
    return Ranking(best, damaged, notes=notes if plain else ())


def _require_question(key: object, sources: Sequence[object], k: object) -> None:
    require_kind(key, Tensor, "key", PromptError, "a matrix [P, D]: the `key` of a SoftPrompt that has one")
    if not is_count(k):
        raise PromptError(f"k is {shown(k)}; expected a whole number of at least 1.")
    for source in sources[:1]:
        require_kind(
            source, tuple, "The first of the sources", LibraryError,
            "sources of spoton.transfer.sources_for([library], model.fingerprint)",
        )  # fmt: skip


def _compared(
    name: str, key: Tensor, start: Tensor | None, prompt: SoftPrompt, metric: Similarity
) -> Retrieved:
    """Returns a source with the similarity of its displacement, if both are known, else of its key."""
    assert prompt.key is not None
    moved = None if start is None else displacement(prompt)
    if moved is None or start is None:
        return Retrieved(name, similarity(key, prompt.key, metric), prompt)
    return Retrieved(name, similarity(key - start, moved, metric), prompt, by="displacement")


def _cosines(key: Tensor, sources: Sequence[SourcePrompt], start: Tensor | None) -> list[float]:
    """Returns the similarity of every source by its library's index; infinity, without one, so that it is read."""
    found = [math.inf] * len(sources)
    by_index: dict[LibraryIndex, list[int]] = {}
    for place, (library, entry) in enumerate(sources):
        if entry.head is not None and entry.dim == key.shape[1]:
            by_index.setdefault(library.index, []).append(place)
    for index, places in by_index.items():
        heads = [head for place in places if (head := sources[place][1].head) is not None]
        known = cosines(key, index, heads, displacement=start).tolist()
        for place, cosine in zip(places, known, strict=True):
            found[place] = cosine if math.isfinite(cosine) else math.inf
    return found


def most_similar(
    key: Float[Tensor, "P D"],
    prompts: Iterable[tuple[str, SoftPrompt]],
    k: int,
    metric: Similarity = "average_tokens",
) -> list[Retrieved]:
    """Returns the k prompts with the most similar keys, most similar first; ties go by name (SPoT, section 3.2).

    No more than k prompts are kept at a time.

    Args:
        key: `[P, D]` of the target task.
        prompts: Names and prompts, each with a key.
        k: Largest number of prompts to return.
        metric: The similarity.

    Raises:
        LibraryError: A prompt has no key.
    """
    return heapq.nsmallest(k, _ranked(key, prompts, metric), key=lambda one: (-one.similarity, one.name))


def _ranked(
    key: Tensor, prompts: Iterable[tuple[str, SoftPrompt]], metric: Similarity
) -> Iterator[Retrieved]:
    for name, prompt in prompts:
        if prompt.key is None:
            raise LibraryError(
                f"{name} has no key, so it cannot be retrieved: its recipe ended before its key_step."
            )
        yield _compared(name, key, None, prompt, metric)
