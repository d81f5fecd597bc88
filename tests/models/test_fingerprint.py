"""The fingerprint: one for a checkpoint in every type, another one for every other model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spoton.errors import PromptError
from spoton.models import FrozenModel
from spoton.models.fingerprint import fingerprints
from spoton.prompts import Card, SoftPrompt
from tests.tiny import FAMILIES, VOCABULARY, WIDTH, draw, tiny

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def held_in(dtype: torch.dtype, family: str, seed: int) -> FrozenModel:
    model = tiny(family, seed=seed)
    model.network.to(dtype)  # type: ignore[arg-type]  # transformers wraps `to` and loses its overloads
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_one_checkpoint_is_accepted_in_every_type(family: str) -> None:
    for seed in range(3):
        models = [held_in(dtype, family, seed) for dtype in TYPES]
        assert len({model.fingerprint for model in models}) == 1
        assert all(one.fingerprint in other.fingerprints for one in models for other in models)


def test_a_size_near_the_edge_of_a_step_is_accepted_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps as small as what rounding does, types do see different ones."""
    monkeypatch.setattr("spoton.models.fingerprint._STEP", 0.004)
    monkeypatch.setattr("spoton.models.fingerprint._MARGIN", 0.002)
    differing = 0
    for seed in range(12):
        models = [held_in(dtype, "llama", seed) for dtype in TYPES]
        differing += len({model.fingerprint for model in models}) > 1
        for one in models:
            assert all(one.fingerprint in other.fingerprints for other in models)
    assert differing


def test_the_form_says_its_version_and_is_pinned() -> None:
    """Prompts that were saved must be usable by every later version."""
    model = tiny("llama")
    with torch.no_grad():
        for number, weight in enumerate(model.network.parameters()):
            start = torch.arange(weight.numel()).remainder(97 + number).sub(40).view(weight.shape)
            weight.copy_(start / 1000)
    assert model.fingerprint == "2-03acd699c235c75a"


def test_prompts_from_before_version_2_are_accepted() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.embeddings.copy_(torch.arange(VOCABULARY * WIDTH).view(VOCABULARY, WIDTH) / 1000)
    assert model.fingerprints[-1] == "e21cf06c8c6ccb01"
    card = Card(name="old", task="t", model="tiny", model_fingerprint="e21cf06c8c6ccb01")
    old = SoftPrompt(draw(2, WIDTH), card)
    old.require_model(model.fingerprints, model.name)
    with pytest.raises(PromptError, match=r"e21cf06c8c6ccb01.*in use is other \(fingerprint 2-\w{16}\)"):
        old.require_model(tiny("llama", seed=1).fingerprints, "other")


def _lora(weight: Tensor) -> None:
    """What merging an adapter of rank 2 leaves, whose weights are a fiftieth of the model's."""
    change = draw(weight.shape[0], 2) @ draw(2, weight.shape[1], seed=1)
    weight.add_(change * (0.02 * weight.norm() / change.norm()))


@pytest.mark.parametrize(
    "change",
    [_lora, lambda w: w.mul_(1.2), lambda w: w.mul_(0.5), lambda w: w.neg_(), lambda w: w.add_(0.01)],
)
def test_a_change_of_two_matrices_changes_it(change: Callable[[Tensor], Any]) -> None:
    """The embedding matrix stays, which is all that version 1 read."""
    model, other = tiny("llama"), tiny("llama")
    with torch.no_grad():
        for layer in other.network.model.layers[:2]:
            change(layer.self_attn.q_proj.weight)
    assert other.fingerprint not in model.fingerprints
    assert model.fingerprint not in other.fingerprints
    assert other.fingerprints[-1] == model.fingerprints[-1]


def test_other_order_of_layers_is_another_model() -> None:
    model, other = tiny("llama"), tiny("llama")
    layers = other.network.model.layers
    layers[0], layers[1] = layers[1], layers[0]
    assert other.fingerprint not in model.fingerprints


def test_every_row_of_the_embedding_matrix_enters() -> None:
    model, other = tiny("llama"), tiny("llama")
    with torch.no_grad():
        other.embeddings[217].neg_()
    assert other.fingerprint not in model.fingerprints


def test_other_seeds_give_other_fingerprints() -> None:
    assert len({tiny("llama", seed=seed).fingerprint for seed in range(8)}) == 8


def test_offloaded_weights_have_none() -> None:
    with pytest.raises(ValueError, match="offloaded"):
        fingerprints(tiny("llama").network.to("meta"))
