"""Choosing an engine: checks that can fail, in every type, and a reason that is kept."""

from __future__ import annotations

import pytest
import torch
import transformers

from spoton.models import FrozenModel, engine_for, packed_attention
from spoton.models.exactness import small_copy
from tests.models.naive import naive_losses, ragged
from tests.tiny import _GROUPED, WIDTH, draw, tiny, tokenizer


def in_bfloat16(family: str) -> FrozenModel:
    model = tiny(family)
    model.network.to(torch.bfloat16)  # type: ignore[arg-type]  # transformers wraps `to` and loses its overloads
    return model


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt2"])
def test_bfloat16_runs_packed_and_gives_its_losses(family: str) -> None:
    model, value = in_bfloat16(family), draw(5, WIDTH)
    engine = engine_for(model)
    assert engine.name == "packed" and engine.choice is not None and "gradients" in engine.choice.reason
    exact = naive_losses(tiny(family), [value], ragged())
    torch.testing.assert_close(engine.losses(value[None], ragged()), exact, rtol=0.05, atol=0.05)


def test_what_rounding_of_the_prompt_does_is_allowed_where_a_small_copy_vouches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With hardly any tolerance in bfloat16, as for a model that turns rounding into most of its gradient."""

    def strict(model: FrozenModel) -> float:
        return 1e-4 if model.dtype == torch.float32 else 1e-6

    monkeypatch.setattr("spoton.models.choose_engine.tolerance_of", strict)
    assert engine_for(in_bfloat16("llama")).name == "packed"
    monkeypatch.setattr("spoton.models.choose_engine._IN_SMALL", {})
    monkeypatch.setattr("spoton.models.choose_engine.small_copy", lambda model: None)
    choice = engine_for(in_bfloat16("llama")).choice
    assert choice is not None and choice.engine == "concatenation" and "differ by" in choice.reason


def test_a_wrong_gradient_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What texts add to the gradient of their prompt is lost; losses stay as they are."""
    monkeypatch.setattr("spoton.models.choose_engine._IN_SMALL", {})
    monkeypatch.setattr(packed_attention, "_add_to_prompts", lambda *arguments: None)
    choice = engine_for(tiny("llama")).choice
    assert choice is not None and choice.engine == "concatenation" and "gradients differ" in choice.reason


def test_what_bfloat16_hides_is_found_in_the_small_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that are 1 % too large stay within what bfloat16 rounds off."""
    monkeypatch.setattr("spoton.models.choose_engine._IN_SMALL", {})
    real = packed_attention._PackedAttention.apply
    monkeypatch.setattr(
        packed_attention._PackedAttention, "apply", lambda *a: real(*a[:5], 1.01 * a[5], *a[6:])
    )
    choice = engine_for(in_bfloat16("llama")).choice
    assert choice is not None and choice.engine == "concatenation" and "in float32" in choice.reason


def test_attention_sinks_are_refused_by_name() -> None:
    config = transformers.GptOssConfig(
        **(_GROUPED | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 64})
    )
    model = FrozenModel("sinks", transformers.AutoModelForCausalLM.from_config(config), tokenizer())
    choice = engine_for(model).choice
    assert choice is not None and choice.engine == "concatenation" and "takes s_aux" in choice.reason


def test_the_small_copy_has_every_kind_of_layer_and_short_windows() -> None:
    small = small_copy(tiny("gemma3", num_hidden_layers=8, sliding_window=64))
    assert small is not None and small.dtype == torch.float32
    config = small.network.config
    assert config.num_hidden_layers < 8 and config.sliding_window == 16
    assert len(set(config.layer_types)) == 2


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3"])
def test_a_step_reads_no_number_of_the_device(family: str) -> None:
    """On the meta device any `.item()`, `.tolist()`, `nonzero` or `float()` of a tensor raises."""
    from spoton.models.packed_decoder import PackedEngine

    model = tiny(family)
    model.network.to("meta")  # type: ignore[arg-type]  # as above
    prompts = torch.empty(2, 5, WIDTH, device="meta", requires_grad=True)
    losses = PackedEngine(model).losses(prompts, ragged([0, 1, 1, 0]))
    losses.sum().backward()
    assert losses.shape == (4,) and prompts.grad is not None and prompts.grad.is_meta


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3"])
def test_fused_attention_gives_the_same_numbers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention of other devices, run on the CPU."""
    from spoton.models.packed_decoder import PackedEngine

    model, value = tiny(family), draw(5, WIDTH).requires_grad_()
    expected = naive_losses(model, [value], ragged())
    monkeypatch.setattr(
        packed_attention._PackedAttention,
        "apply",
        lambda q, k, v, layout, cached, scale, cap: packed_attention._fused(
            q, k, v, layout, cached, scale, cap
        ),
    )
    found = PackedEngine(model).losses(value[None], ragged())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(losses.sum(), value) for losses in (found, expected))
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
