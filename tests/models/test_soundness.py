"""Checkpoints that are not what they say are refused when they are loaded, by name and reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from spoton.errors import ModelError
from spoton.models import FrozenModel, engine_for, load_model
from spoton.models.soundness import require_soundness
from tests.tiny import VOCABULARY, WIDTH, draw, tiny, tokenizer


def saved(family: str, folder: Path) -> Path:
    model = tiny(family)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def renamed(folder: Path, name: object) -> None:
    """Gives the weights of a folder other names; none for those that are left out."""
    file = folder / "model.safetensors"
    weights = {name(key): value for key, value in load_file(file).items()}  # type: ignore[operator]
    save_file({key: value for key, value in weights.items() if key}, file, metadata={"format": "pt"})


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path)
    renamed(folder, lambda key: "" if "layers.1." in key else key)
    with pytest.raises(
        ModelError, match=r"lacks 9 of the weights.*model\.layers\.1\.input_layernorm.*random"
    ):
        load_model(str(folder))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_what_torch_puts_before_names_is_left_out(tmp_path: Path, prefix: str) -> None:
    folder = saved("llama", tmp_path)
    renamed(folder, lambda key: prefix + key)
    assert load_model(str(folder), dtype="float32").fingerprint == tiny("llama").fingerprint


def test_an_encoder_is_refused() -> None:
    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=130, pad_token_id=1, bos_token_id=2, eos_token_id=0,
    )  # fmt: skip
    for dtype in (torch.float32, torch.bfloat16):
        network = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        with pytest.raises(ModelError, match=r"\(roberta\) reads in both directions"):
            require_soundness(FrozenModel("encoder", network, tokenizer()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bloom", "mpt", "t5", "bart"])
def test_models_that_are_sound_pass(family: str, dtype: torch.dtype) -> None:
    model = tiny(family)
    model.network.to(dtype)  # type: ignore[arg-type]  # transformers wraps `to` and loses its overloads
    require_soundness(model)


def test_tokens_without_an_embedding_are_named_and_padding_is_not() -> None:
    larger = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, eos_token="</s>")
    network = tiny("llama", vocab_size=VOCABULARY - 8).network
    with pytest.raises(ModelError, match=r"320 tokens and the model 312 embeddings; without one"):
        require_soundness(FrozenModel("short", network, larger))


def test_a_model_that_cannot_generate_says_so() -> None:
    config = transformers.OpenAIGPTConfig(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=128
    )
    model = FrozenModel("gpt-1", transformers.AutoModelForCausalLM.from_config(config), tokenizer())
    generate = engine_for(model).generator(draw(1, 3, WIDTH))
    from spoton.models import Batch

    with pytest.raises(ModelError, match=r"gpt-1 \(openai-gpt\) cannot generate text behind a soft prompt"):
        generate(Batch([[5, 6]], [[7]]), 3)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n")
    (tmp_path / "config.json").write_text(
        '{"model_type": "of-a-stranger", "auto_map": {"AutoConfig": "code.Config"}}'
    )
    with pytest.raises(ModelError, match="needs code that comes with it"):
        load_model(str(tmp_path))
    assert not marker.exists()
