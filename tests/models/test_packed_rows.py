"""The layout of a packed row, and attention over it against torch's own over separate rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from spoton.models.packed_attention import ATTENTION_NAME, attention, packed_attention
from spoton.models.packed_rows import ON_PROCESSOR, BlockBounds, Layout, PromptCache, lay_out
from tests.tiny import draw, tiny


def seen(layout: Layout) -> dict[int, list[int]]:
    """Packed places each packed token may attend to, its prompt's first."""
    found = {}
    for block in layout.blocks:
        flat = block.places.flatten().tolist()
        longest = block.places.shape[1]
        bias = block.bias.expand(len(block.places), -1, -1)
        for stands, place in zip(block.real.tolist(), range(block.start, block.stop), strict=True):
            assert flat[stands] == place
            sequence, column = divmod(stands, longest)
            before = [] if block.prompts is None else list(layout.prompts[block.prompts[sequence]])
            keys = [*before, *block.places[sequence].tolist()]
            found[place] = [
                key for key, one in zip(keys, bias[sequence, column].tolist(), strict=True) if one == 0
            ]
        assert {*block.real.tolist(), *block.padding.tolist()} == set(range(len(flat)))
    return found


def test_texts_see_their_prompt_and_their_own_past_only() -> None:
    layout = lay_out([2, 1], [2, 1], [0, 1], torch.float32)
    # The text of one token comes first: the prompt in front of it is the shorter one.
    assert seen(layout) == {0: [0], 1: [0, 1], 2: [2], 3: [2, 3], 4: [0, 1, 4], 5: [0, 1, 4, 5]}
    assert layout.position_ids.tolist() == [[0, 1, 0, 1, 2, 3]]
    assert layout.starts == (4, 3)


def test_sequences_of_like_length_share_a_block_and_are_found_by_row() -> None:
    layout = lay_out([1, 1], [2, 40, 1], [1, 0, 0], torch.float32, bounds=BlockBounds(20, 2048))
    assert layout.order == (2, 0, 1)
    assert layout.starts == (3, 5, 2)
    assert [(block.start, block.stop, block.prompts) for block in layout.blocks] == [
        (0, 2, None), (2, 5, (0, 1)), (5, 45, (0,)),
    ]  # fmt: skip
    assert layout.blocks[1].places.tolist() == [[2, 2], [3, 4]]
    assert layout.blocks[1].padding.tolist() == [1]


def test_texts_of_one_block_stand_by_prompt() -> None:
    layout = lay_out([1, 1], [2, 3, 1, 1], [1, 0, 1, 0], torch.float32)
    assert layout.order == (3, 1, 2, 0)
    assert layout.blocks[1].prompts == (0, 0, 1, 1)


def test_prompts_of_different_lengths_are_never_in_front_of_one_block() -> None:
    layout = lay_out([1, 3], [2, 2], [1, 0], torch.float32)
    assert [(block.prompts, block.before) for block in layout.blocks] == [(None, 0), ((0,), 1), ((1,), 3)]


def test_branches_see_their_text_and_not_each_other() -> None:
    layout = lay_out([0], [2, 1], [0, 0], torch.float32, branches=[[1, 0, 2]] * 2)
    assert seen(layout) == {
        0: [0], 1: [0, 1], 2: [0, 2], 3: [0, 2, 3],
        4: [4], 5: [4, 5], 6: [4, 5, 6], 7: [4, 5, 7], 8: [4, 5, 7, 8],
    }  # fmt: skip
    assert layout.position_ids.tolist() == [[0, 1, 1, 2, 0, 1, 2, 2, 3]]


def test_cached_prompts_stand_in_front_of_the_row() -> None:
    layout = lay_out([2, 1], [2, 1], [0, 1], torch.float32, cache=PromptCache())
    assert layout.prompts == (range(0, 2), range(2, 3))
    assert [(block.start, block.stop, block.prompts) for block in layout.blocks] == [
        (0, 1, (1,)),
        (1, 3, (0,)),
    ]


@pytest.mark.parametrize(("pairs", "cuts"), [(0, [0, 4, 9]), (41, [0, 4, 9]), (42, [0, 9])])
def test_a_block_ends_where_padding_would_cost_more_than_another(pairs: int, cuts: list[int]) -> None:
    # Two texts of two tokens padded to five: 75 pairs, of which 42 are of padding.
    layout = lay_out([0], [2, 2, 5], [0, 0, 0], torch.float32, bounds=BlockBounds(pairs, 2048))
    assert [block.start for block in layout.blocks] == cuts[:-1]
    assert [block.stop for block in layout.blocks] == cuts[1:]


def test_a_block_of_equal_texts_ends_where_its_temporaries_would_be_large() -> None:
    layout = lay_out([0], [ON_PROCESSOR.tokens // 4] * 6, [0] * 6, torch.float32)
    assert [len(block.places) for block in layout.blocks] == [4, 2]


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("pairs", [0, 30, 10_000])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_and_its_gradient_equal_torch_on_every_row_by_itself(
    kv_heads: int, pairs: int, softcap: float | None
) -> None:
    lengths, own, prompt_lengths, heads, width = [3, 1, 5], [1, 0, 1], [4, 2], 4, 8
    total = sum(prompt_lengths) + sum(lengths)
    query = draw(1, heads, total, width, scale=1.0).requires_grad_()
    key, value = (draw(1, kv_heads, total, width, seed=s, scale=1.0).requires_grad_() for s in (1, 2))
    layout = lay_out(prompt_lengths, lengths, own, torch.float32, bounds=BlockBounds(pairs, 2048))
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
