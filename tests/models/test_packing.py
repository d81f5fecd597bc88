"""The layout of a packed row, and attention over it against torch's own over separate rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from spoton.models.attention import ATTENTION_NAME, attention, packed_attention
from spoton.models.packing import Layout, lay_out
from tests.tiny import draw, tiny


def seen(layout: Layout) -> dict[int, list[int]]:
    """Packed places each packed token may attend to, its prompt's first."""
    found = {}
    for chunk in layout.chunks:
        own = range(chunk.start, chunk.stop)
        before: range | list[int] = []
        if chunk.prompt is not None and layout.prompts:
            before = range(layout.prompts[chunk.prompt].start, layout.prompts[chunk.prompt].stop)
        for place, line in zip(own, chunk.bias.tolist(), strict=True):
            keys = [*before, *own] if layout.prompts else list(own)
            line = line[len(line) - len(keys) :]
            found[place] = [key for key, bias in zip(keys, line, strict=True) if bias == 0]
    return found


def test_texts_see_their_prompt_and_their_own_past_only() -> None:
    layout = lay_out([2, 1], [2, 1], [0, 1], torch.float32)
    assert seen(layout) == {0: [0], 1: [0, 1], 2: [2], 3: [0, 1, 3], 4: [0, 1, 3, 4], 5: [2, 5]}
    assert layout.position_ids.tolist() == [[0, 1, 0, 2, 3, 1]]
    assert layout.starts == (3, 5)


def test_texts_are_packed_by_prompt_and_found_by_row() -> None:
    layout = lay_out([1, 1], [2, 3, 1], [1, 0, 1], torch.float32)
    assert layout.order == (1, 0, 2)
    assert layout.starts == (5, 2, 7)
    assert [(c.start, c.stop, c.prompt) for c in layout.chunks] == [
        (0, 1, None), (1, 2, None), (2, 5, 0), (5, 8, 1),
    ]  # fmt: skip


def test_branches_see_their_text_and_not_each_other() -> None:
    layout = lay_out([0], [2, 1], [0, 0], torch.float32, branches=[1, 0, 2])
    assert seen(layout) == {
        0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 3], 4: [0, 1, 3, 4],
        5: [5], 6: [5, 6], 7: [5, 7], 8: [5, 7, 8],
    }  # fmt: skip
    assert layout.position_ids.tolist() == [[0, 1, 2, 2, 3, 0, 1, 1, 2]]


@pytest.mark.parametrize(("size", "cuts"), [(1, [0, 2, 4, 6]), (4, [0, 4, 6]), (5, [0, 4, 6]), (100, [0, 6])])
def test_a_chunk_takes_whole_texts(size: int, cuts: list[int]) -> None:
    layout = lay_out([0], [2, 2, 2], [0, 0, 0], torch.float32, chunk_tokens=size)
    assert [chunk.start for chunk in layout.chunks] == cuts[:-1]
    assert [chunk.stop for chunk in layout.chunks] == cuts[1:]


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 100])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_and_its_gradient_equal_torch_on_every_row_by_itself(
    kv_heads: int, chunk_tokens: int, softcap: float | None
) -> None:
    lengths, own, prompt_lengths, heads, width = [3, 1, 5], [1, 0, 1], [4, 2], 4, 8
    total = sum(prompt_lengths) + sum(lengths)
    query = draw(1, heads, total, width, scale=1.0).requires_grad_()
    key, value = (draw(1, kv_heads, total, width, seed=s, scale=1.0).requires_grad_() for s in (1, 2))
    layout = lay_out(prompt_lengths, lengths, own, torch.float32, chunk_tokens=chunk_tokens)
    with packed_attention(tiny("llama").network, layout):
        found = attention(nn.Identity(), query, key, value, None, softcap=softcap)[0]
    assert found.shape == (1, total, heads, width)
    rows = [list(range(0, 4)), list(range(4, 6))]
    for length, prompt, start in zip(lengths, own, layout.starts, strict=True):
        rows.append([*rows[prompt], *range(start, start + length)])
    weight = draw(1, total, heads, width, seed=3, scale=1.0)
    expected, expected_sum = torch.zeros_like(found), torch.zeros(())
    for number, places in enumerate(rows):
        new = places if number < 2 else places[prompt_lengths[own[number - 2]] :]
        out = plain(query[:, :, places], key[:, :, places], value[:, :, places], softcap).transpose(1, 2)
        out = out[:, -len(new) :]
        expected[:, new] = out.detach()
        expected_sum = expected_sum + (out * weight[:, new]).sum()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad((found * weight).sum(), (query, key, value))
    theirs = torch.autograd.grad(expected_sum, (query, key, value))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def plain(query: Tensor, key: Tensor, value: Tensor, softcap: float | None) -> Tensor:
    """Causal attention of one row by the formula."""
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) / query.shape[-1] ** 0.5
    scores = softcap * torch.tanh(scores / softcap)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ value.repeat_interleave(groups, 1)


def test_the_network_attends_as_before_even_after_an_error() -> None:
    network = tiny("llama").network
    before = network.config._attn_implementation
    with (
        pytest.raises(RuntimeError, match="boom"),
        packed_attention(network, lay_out([0], [1], [0], torch.float32)),
    ):
        assert network.config._attn_implementation == ATTENTION_NAME
        raise RuntimeError("boom")
    assert network.config._attn_implementation == before
