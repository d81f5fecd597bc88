"""A cache of prompts' keys and values between passes, bounded in bytes; the least recently used go first.

A prompt's keys and values do not depend on the text after it (causal attention), so a prompt in frequent use runs
through the model once. Used only by the thread that runs the model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor

from spoton.models.packed_rows import PromptCache

KeysAndValues = dict[int, tuple[Tensor, Tensor]]
"""Of one prompt: layer -> `[Hkv, P, hd]` twice."""


class BoundedPromptCache:
    """Keys and values by a prompt's content, not by its name.

    Args:
        compute: Computes the keys and values of some prompts `[P_k, D]`, numbered as given.
        max_bytes: The bound; a larger prompt is computed for every pass.

    Attributes:
        bytes: Bytes in the cache.
        hits: How often a prompt was in the cache.
        misses: How often one was computed.
        evictions: How often one was evicted.
    """

    def __init__(self, compute: Callable[[Sequence[Tensor]], PromptCache], max_bytes: int) -> None:
        self._compute, self._max_bytes = compute, max_bytes
        self._kept: OrderedDict[str, KeysAndValues] = OrderedDict()
        self.bytes = self.hits = self.misses = self.evictions = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, prompts: Sequence[tuple[str, Tensor]]) -> PromptCache:
        """Returns the keys and values of the prompts of one pass, numbered as given.

        Args:
            prompts: Hash and value `[P, D]` of each; hashes are distinct.
        """
        missing = [(key, value) for key, value in prompts if key not in self._kept]
        self.hits += len(prompts) - len(missing)
        self.misses += len(missing)
        found = {key: self._kept[key] for key, _ in prompts if key in self._kept}
        if missing:
            entries = self._compute([value for _, value in missing]).entries
            for (layer, number), pair in entries.items():
                found.setdefault(missing[number][0], {})[layer] = pair
        for key, _ in prompts:
            self._keep(key, found[key])
        pairs = {
            (layer, number): pair
            for number, (key, _) in enumerate(prompts)
            for layer, pair in found[key].items()
        }
        return PromptCache(pairs)

    def _keep(self, key: str, entry: KeysAndValues) -> None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        size = _bytes_of(entry)
        if size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= _bytes_of(oldest)
            self.evictions += 1
        self._kept[key] = entry
        self.bytes += size


def _bytes_of(entry: KeysAndValues) -> int:
    return sum(part.numel() * part.element_size() for pair in entry.values() for part in pair)
