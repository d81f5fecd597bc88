"""Keys and values of prompts: within the bound, the least recently used go first, and they are the right ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spoton.models.packed_decoder import PackedEngine
from spoton.models.packed_rows import PromptCache
from spoton.serving.prompt_cache import BoundedPromptCache
from tests.tiny import WIDTH, draw, tiny


def test_the_least_recently_used_go_first() -> None:
    engine = PackedEngine(tiny("llama"))
    computed: list[int] = []

    def remember(prompts: Sequence[Tensor]) -> PromptCache:
        computed.extend(len(prompt) for prompt in prompts)
        return engine.remember(prompts)

    prompts = {str(length): draw(length, WIDTH) for length in (1, 2, 3, 4)}
    one = sum(part.nbytes for pair in engine.remember([prompts["1"]]).entries.values() for part in pair)
    cache = BoundedPromptCache(remember, 6 * one)

    def get(*names: str) -> PromptCache:
        return cache.get([(name, prompts[name]) for name in names])

    get("1", "2", "3")
    assert cache.bytes == 6 * one and computed == [1, 2, 3]
    get("1")
    assert computed == [1, 2, 3] and cache.hits == 1
    get("2", "4")  # 2 is used, 3 and 1 have to go
    assert computed == [1, 2, 3, 4] and cache.bytes == 6 * one and cache.evictions == 2
    get("3", "2", "4")
    assert computed == [1, 2, 3, 4, 3] and cache.bytes <= 6 * one


def test_what_is_found_is_what_would_be_computed() -> None:
    engine = PackedEngine(tiny("llama"))
    a, b = draw(3, WIDTH, seed=1), draw(5, WIDTH, seed=2)
    cache = BoundedPromptCache(engine.remember, 10**9)
    cache.get([("a", a)])
    found = cache.get([("b", b), ("a", a)]).entries
    expected = engine.remember([b, a]).entries
    assert found.keys() == expected.keys()
    for place, (key, value) in expected.items():
        torch.testing.assert_close(found[place], (key, value), rtol=1e-5, atol=1e-5)


def test_a_prompt_that_is_larger_than_the_bound_is_not_kept() -> None:
    engine = PackedEngine(tiny("llama"))
    cache = BoundedPromptCache(engine.remember, 10)
    assert cache.get([("a", draw(3, WIDTH))]).entries
    assert cache.bytes == 0 and len(cache) == 0
