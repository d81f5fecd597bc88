"""What a step keeps, and how it is split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from spoton.errors import ModelError
from spoton.models import Batch, engine_for
from spoton.models.memory import free_bytes
from spoton.tuning import Recipe, microbatches, tune
from spoton.tuning.microbatches import Microbatches, StepRows, count_kept, split
from tests.models.naive import assert_equal_gradients
from tests.tiny import WIDTH, draw, tiny, toy_task


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


BATCH = Batch([[5, 9, 7], [3, 4], [8, 2, 6], [9]], [[4], [6, 7, 9], [2], [5]])


class Short:
    """An engine that lacks memory for passes of more than so many rows: it asks the real allocator for an exabyte."""

    def __init__(self, engine: Any, most_rows: int) -> None:
        self._engine, self._most, self.passes = engine, most_rows, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def losses(self, prompts: Sequence[Tensor], batch: Batch) -> Tensor:
        self.passes.append(len(batch))
        if len(batch) > self._most:
            torch.empty(2**60, dtype=torch.uint8)
        losses: Tensor = self._engine.losses(prompts, batch)
        return losses


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Short]:
    """Makes every engine short of memory."""

    def make(most_rows: int) -> Short:
        engine = Short(engine_for(tiny("llama")), most_rows)
        monkeypatch.setattr(microbatches, "engine_for", lambda model: engine)
        return engine

    return make


def test_a_step_that_ran_out_of_memory_goes_on_in_smaller_passes(short: Callable[[int], Short]) -> None:
    rows = StepRows.of(BATCH, "examples")
    whole, prompt = draw(3, WIDTH).requires_grad_(), draw(3, WIDTH).requires_grad_()
    (expected,) = Microbatches(tiny("llama")).gradients([whole], [rows])
    engine = short(2)
    passes = Microbatches(tiny("llama"))
    (loss,) = passes.gradients([prompt], [rows])
    assert 4 in engine.passes and passes.most_passes >= 2
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_equal_gradients(prompt.grad, whole.grad)  # nothing of the failed pass is left
    assert "Memory ran out" in passes.messages[0] and "allocate" in passes.messages[0]
    tried = len(engine.passes)
    passes.gradients([prompt], [rows])
    assert all(rows <= 2 for rows in engine.passes[tried:])  # it has learned its limit
    assert len(passes.messages) == len(set(passes.messages))


def test_a_single_row_that_does_not_fit_is_an_error_a_user_can_do_something_about(
    short: Callable[[int], Short],
) -> None:
    short(0)
    with pytest.raises(ModelError, match="single row needs more memory"):
        Microbatches(tiny("llama"), 1e9).gradients(
            [draw(3, WIDTH).requires_grad_()], [StepRows.of(BATCH, "examples")]
        )


def test_who_tunes_is_told_that_memory_ran_out(short: Callable[[int], Short]) -> None:
    recipe = Recipe(length=4, steps=2, key_step=1, evaluate_every=2, batch_size=4, learning_rate=0.1)
    plain = tune(tiny("llama"), toy_task(), recipe)
    short(2)
    tuned = tune(tiny("llama"), toy_task(), recipe)
    assert tuned.passes >= 2 and "Memory ran out" in tuned.message and "Memory" not in plain.message
    torch.testing.assert_close(tuned.prompt.value, plain.prompt.value, rtol=1e-3, atol=1e-5)


def test_a_limit_below_a_row_is_told() -> None:
    passes = Microbatches(tiny("llama"), 1.0)
    passes.gradients([draw(3, WIDTH).requires_grad_()], [StepRows.of(BATCH, "examples")])
    assert passes.most_passes == 4 and "every row goes through the model alone" in passes.messages[0]
