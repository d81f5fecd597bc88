"""The layout of a packed row, and attention over it against torch's own over separate rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from spoton.models.packing import (
    ATTENTION_NAME,
    Layout,
    attention,
    branch_rows,
    packed_attention,
    prompt_bias,
    text_rows,
)
from tests.tiny import draw, tiny

KEPT, HIDDEN = 0.0, float("-inf")


def test_text_rows_see_their_own_past_only() -> None:
    rows = text_rows(10, [2, 1], [0, 1], torch.float32)
    assert rows.query.tolist() == [[10, 11], [12, 12]]
    assert rows.bias.tolist() == [[[[KEPT, HIDDEN], [KEPT, KEPT]]], [[[KEPT, HIDDEN], [KEPT, HIDDEN]]]]
    assert rows.unpad.tolist() == [0, 1, 2]  # row 1 has no second token
    assert rows.prompt.tolist() == [0, 1]


def test_branches_see_their_text_and_not_each_other() -> None:
    texts = text_rows(0, [3, 1], [0, 0], torch.float32)
    branches = branch_rows(4, texts, [0, 0, 1], [1, 2, 1], torch.float32)
    assert branches.key.tolist() == [[0, 1, 2, 4, 4], [0, 1, 2, 5, 6], [3, 3, 3, 7, 7]]
    seen = [[[key for key, bias in zip(branches.key[r].tolist(), line, strict=True) if bias == KEPT]
             for line in branches.bias[r, 0].tolist()] for r in range(3)]  # fmt: skip
    assert seen[0][0] == [0, 1, 2, 4]
    assert seen[1] == [[0, 1, 2, 5], [0, 1, 2, 5, 6]]
    assert seen[2][0] == [3, 7]


def test_prompt_bias_hides_what_stands_behind_a_shorter_prompt() -> None:
    assert prompt_bias([3, 3], torch.float32) is None
    bias = prompt_bias([3, 1], torch.float32)
    assert bias is not None and bias.tolist() == [[KEPT] * 3, [KEPT, HIDDEN, HIDDEN]]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_equals_torch_on_every_row_by_itself(kv_heads: int) -> None:
    lengths, own, prompt_lengths, heads, width = [3, 1, 5], [1, 0, 1], [4, 2], 4, 8
    front, total = 2 * 4, 2 * 4 + sum(lengths)
    query = draw(1, heads, total, width, scale=1.0)
    key, value = draw(2, 1, kv_heads, total, width, seed=1, scale=1.0)
    layout = Layout(
        n_prompts=2,
        prompt_length=4,
        prompt_bias=prompt_bias(prompt_lengths, torch.float32),
        groups=(text_rows(front, lengths, own, torch.float32),),
        position_ids=torch.zeros(1, total, dtype=torch.long),  # attention itself reads no positions
    )
    with packed_attention(tiny("llama").network, layout):
        found = attention(nn.Identity(), query, key, value, None)[0]
    assert found.shape == (1, total, heads, width)
    start = front
    for length, prompt in zip(lengths, own, strict=True):
        first = 4 * prompt
        places = [*range(first, first + prompt_lengths[prompt]), *range(start, start + length)]
        expected = scaled_dot_product_attention(
            query[:, :, places], key[:, :, places], value[:, :, places], is_causal=True, enable_gqa=True
        ).transpose(1, 2)
        torch.testing.assert_close(found[:, places], expected, rtol=1e-5, atol=1e-5)
        start += length


def test_the_network_attends_as_before_even_after_an_error() -> None:
    network = tiny("llama").network
    before = network.config._attn_implementation
    layout = Layout(1, 0, None, (), torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(RuntimeError, match="boom"), packed_attention(network, layout):
        assert network.config._attn_implementation == ATTENTION_NAME
        raise RuntimeError("boom")
    assert network.config._attn_implementation == before
