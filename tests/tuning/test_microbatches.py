"""What a step keeps, and how it is split."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spoton.models.memory import free_bytes
from spoton.tuning.microbatches import count_kept, split


def test_kept_is_what_the_backward_pass_needs_without_the_weights() -> None:
    network = nn.Linear(3, 5, bias=False)
    row = torch.ones(2, 3, requires_grad=True)
    with count_kept(network) as kept:
        out = network(row)
        total = (out * out).sum()
    assert kept.bytes == (2 * 3 + 2 * 5) * 4  # the input, and the output that is squared; once each
    del total


def test_a_frozen_weight_keeps_no_input() -> None:
    network = nn.Linear(3, 5, bias=False).requires_grad_(False)
    with count_kept(network) as kept:
        out = network(torch.ones(2, 3, requires_grad=True)).sum()
    assert out.requires_grad and kept.bytes == 0


def test_free_memory_is_a_positive_number() -> None:
    assert free_bytes(torch.device("cpu")) > 2**20


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.floats(0.5, 120))
def test_every_row_goes_once_and_in_order_and_no_pass_is_too_large(costs: list[int], limit: float) -> None:
    passes = split(costs, limit)
    assert [row for one in passes for row in one] == list(range(len(costs)))
    assert all(len(one) == 1 or sum(costs[row] for row in one) <= limit for one in passes)
