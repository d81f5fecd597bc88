"""The engine for GPUs, with FlashAttention by its formula: losses, gradients and scores are those of the naive one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spoton.models import Batch, FrozenModel, engine_for
from spoton.models.cascade_attention import Sequences, flash_backward, flash_forward
from spoton.models.exactness import LONG, SHORT, difference, numbers
from spoton.models.fused_decoder import FusedEngine, lay_out_sequences
from spoton.models.fused_layers import can_fuse
from spoton.models.generation import continue_greedily
from spoton.models.packed_decoder import PackedEngine
from tests.models.naive import assert_equal_gradients, assert_equal_losses, naive_losses, ragged
from tests.tiny import WIDTH, draw, tiny, with_biases

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
LABELS = [[30], [31, 32], [33, 34, 35]]


def gradients_of(losses: Tensor, prompts: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(losses.sum(), prompts))


@pytest.mark.parametrize("family", LLAMA_LIKE)
def test_losses_and_gradients_equal_the_naive_formula(family: str) -> None:
    model = with_biases(family)
    engine = FusedEngine(model)
    # Prompts of unlike lengths, one of them empty, one without a text; texts not in the prompts' order.
    prompts = [draw(n, WIDTH, seed=n).requires_grad_() for n in (5, 3, 0, 2)]
    batch = Batch(
        [[9, 4, 7], [5], [8, 3], [6, 6, 6, 6], [1, 2]], [[4], [6, 7], [6], [7, 7], [3]], [1, 0, 2, 0, 1]
    )
    found, expected = engine.losses(prompts, batch), naive_losses(model, prompts, batch)
    assert_equal_losses(found, expected)
    used = [prompts[0], prompts[1]]
    for one, other in zip(gradients_of(found, used), gradients_of(expected, used), strict=True):
        assert_equal_gradients(one, other)


@pytest.mark.parametrize("family", LLAMA_LIKE)
@pytest.mark.parametrize("lengths", [SHORT, LONG])
def test_losses_scores_and_gradients_are_those_of_the_packed_engine(
    family: str, lengths: tuple[tuple[int, int], ...]
) -> None:
    model, other = with_biases(family), with_biases(family)
    found = numbers(FusedEngine(model), model, lengths)
    assert difference(found, numbers(PackedEngine(other), other, lengths), 1e-5) == ""


def test_gradients_flow_through_label_scores() -> None:
    model, other = tiny("llama"), tiny("llama")
    prompts = [draw(4, WIDTH).requires_grad_(), draw(2, WIDTH, seed=1).requires_grad_()]
    batch = Batch([[9, 4, 7], [5], [8, 3]], [()] * 3, [1, 0, 1])
    scores = [
        engine.label_scores(prompts, batch, LABELS) for engine in (FusedEngine(model), PackedEngine(other))
    ]
    assert_equal_losses(scores[0].flatten(), scores[1].flatten())
    for one, two in zip(gradients_of(scores[0], prompts), gradients_of(scores[1], prompts), strict=True):
        assert_equal_gradients(one, two)


def test_remembered_prompts_score_and_continue_like_prompts_in_the_row() -> None:
    model = tiny("llama")
    engine, prompts = FusedEngine(model), [draw(4, WIDTH), draw(2, WIDTH, seed=1)]
    batch = Batch([[9, 4, 7], [5], [8, 3]], [()] * 3, [1, 0, 1])
    with torch.no_grad():
        assert_equal_losses(
            engine.scorer(prompts)(batch, LABELS).flatten(),
            engine.label_scores(prompts, batch, LABELS).flatten(),
        )
    other = PackedEngine(tiny("llama"))
    found = continue_greedily(model, engine.remember(prompts), batch, 5)
    assert found == continue_greedily(other.model, other.remember(prompts), batch, 5)


def test_joint_weights_share_memory_and_follow_a_change() -> None:
    model, value = tiny("llama"), draw(3, WIDTH)
    before = sum(
        weight.untyped_storage().nbytes()
        for weight in {id(w): w for w in model.network.parameters()}.values()
    )
    engine = FusedEngine(model)
    storages = {
        w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in model.network.parameters()
    }
    assert sum(storages.values()) == before
    with torch.no_grad():
        model.network.model.layers[0].self_attn.k_proj.weight.mul_(2)
        model.network.model.layers[1].mlp.up_proj.weight.mul_(3)
    assert_equal_losses(engine.losses(value[None], ragged()), naive_losses(model, [value], ragged()))


def test_model_tuning_runs_the_layers_of_transformers() -> None:
    model = tiny("llama")
    engine = FusedEngine(model)
    model.network.requires_grad_(True)
    empty = torch.zeros(0, WIDTH)
    losses = engine.losses([empty], ragged())
    losses.sum().backward()
    assert model.network.model.layers[0].mlp.up_proj.weight.grad is not None
    model.network.requires_grad_(False)
    assert_equal_losses(losses, naive_losses(model, [empty], ragged()))


def test_the_formula_of_one_causal_sequence_is_that_of_pytorch() -> None:
    query, key, value = (draw(n, 2, 8, seed=n).requires_grad_() for n in (5, 7, 7))
    at = Sequences.of([5], [7])
    out, weight = flash_forward(query, key, value, at, 0.3, is_causal=True)
    seen = torch.ones(5, 7, dtype=torch.bool).tril(2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(part.transpose(0, 1) for part in (query, key, value)), attn_mask=seen, scale=0.3
    ).transpose(0, 1)
    torch.testing.assert_close(out, expected)
    grad = draw(5, 2, 8, seed=9)
    found = flash_backward(grad, query, key, value, out, weight, at, 0.3, is_causal=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (query, key, value), grad))


def test_sequences_of_texts_branches_and_prompts() -> None:
    layout = lay_out_sequences([2, 3], [4, 1, 2], [1, 0, 1], [[], [1, 0, 2], []])
    assert layout.order == (1, 0, 2) and layout.starts == (9, 5, 13)
    assert layout.position_ids.tolist() == [[0, 1, 0, 1, 2, 2, 3, 3, 4, 3, 4, 5, 6, 3, 4]]
    found = layout.cascade
    assert found is not None and found.shared is not None and found.seen is not None
    assert found.own.queries.tolist() == [0, 2, 5, 6, 7, 9, 13, 15]
    assert found.own.keys.tolist() == [0, 2, 5, 6, 8, 11, 15, 17]
    assert found.seen.tolist() == [0, 1, 2, 3, 4, 5, 5, 6, 5, 7, 8, 9, 10, 11, 12, 13, 14]
    assert found.shared.queries.tolist() == [0, 4, 10] and found.shared.keys.tolist() == [0, 2, 5]
    assert (found.prompts, found.first) == (5, 5)


def test_models_without_heads_run_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenModel, "device", torch.device("cuda"))
    assert not can_fuse(tiny("mamba"))


def test_processors_run_another_engine() -> None:
    model = tiny("llama")
    assert not can_fuse(model) and not isinstance(engine_for(model), FusedEngine)
