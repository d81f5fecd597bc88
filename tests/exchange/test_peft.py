"""PEFT itself loads what is exported, and what it saves is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spoton.errors import ModelError, PromptError
from spoton.exchange.peft import export_peft, read_peft
from spoton.models import FrozenModel
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from tests.exchange.conftest import TEXTS, greedy, prompt_of
from tests.tiny import tiny

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install 'spoton[peft]'")

# PEFT drops the position ids that transformers hands it, and says so.
pytestmark = pytest.mark.filterwarnings("default:Position ids are not supported", "default::FutureWarning")

DECODERS = ("llama", "gpt2", "qwen2")


def loaded(model: FrozenModel, folder: Path) -> torch.nn.Module:
    """The adapter as PEFT loads it; it wraps the model's own network, which stays as it is."""
    found = peft.PeftModel.from_pretrained(model.network, folder)
    found.train(False)
    return found


@pytest.mark.parametrize("family", DECODERS)
def test_peft_gives_the_same_losses_and_logits(family: str, tmp_path: Path) -> None:
    """Right-padded, as PEFT needs it: it counts positions from the first token of a row."""
    model = tiny(family)
    prompt = prompt_of(model)
    adapter = loaded(model, export_peft(prompt, model, tmp_path / "adapter"))
    texts = [model.encode_input(text) for text in TEXTS[:6]]
    targets = [model.encode_target(word, end=False) for word in ("yes", "no", "yes", "no", "maybe", "yes")]
    rows = [[*text, *target] for text, target in zip(texts, targets, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        logits = adapter(input_ids=ids, attention_mask=mask).logits[:, prompt.length :]
        expected = engine_for(model).losses(prompt.value[None], Batch(texts, targets))
    found = []
    for row, (text, target) in enumerate(zip(texts, targets, strict=True)):
        at = slice(len(text) - 1, len(text) - 1 + len(target))
        likelihood = logits[row, at].log_softmax(-1).gather(1, torch.tensor(target)[:, None])
        found.append(-likelihood.sum())
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-4)


def test_a_model_whose_text_peft_would_misread_is_refused(tmp_path: Path) -> None:
    model = tiny("pegasus")
    with pytest.raises(ModelError, match="scales its tokens"):
        export_peft(prompt_of(model), model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_model_without_attention_is_exported(tmp_path: Path) -> None:
    """PEFT itself runs no recurrent model, but its format holds their prompts, and they come back."""
    model = tiny("mamba")
    prompt = prompt_of(model)
    folder = export_peft(prompt, model, tmp_path / "adapter")
    assert torch.equal(read_peft(folder).value, prompt.value)


@pytest.mark.parametrize("family", DECODERS)
def test_peft_gives_the_same_greedy_text(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = prompt_of(model)
    adapter = loaded(model, export_peft(prompt, model, tmp_path / "adapter"))
    for text in TEXTS[:20]:
        ids = torch.tensor([model.encode_input(text)])
        tokens = adapter.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=1,
            eos_token_id=0,
        )[0, ids.shape[1] :].tolist()
        end = tokens.index(model.end_token) if model.end_token in tokens else len(tokens)
        assert tokens[:end] == greedy(model, prompt, text), text


@pytest.mark.parametrize("family", ["t5", "t5_v1_1"])
def test_peft_uses_the_first_half_of_the_rows_of_t5(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = prompt_of(model)
    folder = export_peft(prompt, model, tmp_path / "adapter")
    assert load_file(folder / "adapter_model.safetensors")["prompt_embeddings"].shape == (14, model.dim)
    adapter = loaded(model, folder)
    for text in TEXTS[:10]:
        source, target = model.encode_input(text), model.encode_target("yes", end=True)
        with torch.no_grad():
            logits = adapter(
                input_ids=torch.tensor([source]),
                attention_mask=torch.ones(1, len(source)),
                labels=torch.tensor([target]),
            ).logits[0]  # fmt: skip
            expected = engine_for(model).losses(prompt.value[None], Batch([source], [target]))[0]
        found = -logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        tokens = adapter.generate(
            input_ids=torch.tensor([source]), attention_mask=torch.ones(1, len(source)), max_new_tokens=12,
            do_sample=False, eos_token_id=0, pad_token_id=1, decoder_start_token_id=1,
        )[0, 1:].tolist()  # fmt: skip
        end = tokens.index(model.end_token) if model.end_token in tokens else len(tokens)
        assert tokens[:end] == greedy(model, prompt, text), text


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_what_peft_saves_is_imported(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    kind = "SEQ_2_SEQ_LM" if model.is_encoder_decoder else "CAUSAL_LM"
    config = peft.PromptTuningConfig(task_type=kind, num_virtual_tokens=5, prompt_tuning_init="RANDOM")
    wrapped = peft.get_peft_model(model.network, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    foreign = read_peft(tmp_path / "adapter")
    rows = wrapped.prompt_encoder["default"].embedding.weight[:5]
    assert torch.equal(foreign.value, rows)
    assert "name" not in foreign.facts


def test_the_card_comes_back(tmp_path: Path) -> None:
    model = tiny("llama")
    prompt = prompt_of(model, labels=["yes", "no"], template="{{ text }}")
    again = read_peft(export_peft(prompt, model, tmp_path / "adapter")).to_prompt()
    assert again.card == prompt.card and torch.equal(again.value, prompt.value)


def test_a_prompt_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="works with no other"):
        export_peft(prompt_of(tiny("llama")), tiny("gpt2"), tmp_path)


def test_adapters_that_are_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"no .*adapter_config\.json"):
        read_peft(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(PromptError, match="adapter of type 'LORA'"):
        read_peft(tmp_path)
    config.write_text("[]")
    with pytest.raises(PromptError, match="no JSON object"):
        read_peft(tmp_path)
    fields = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5, "token_dim": 8}
    save_file({"prompt_embeddings": torch.zeros(4, 8)}, tmp_path / "adapter_model.safetensors")
    config.write_text(json.dumps(fields))
    with pytest.raises(PromptError, match=r"shape \[4, 8\]; its configuration says \[5, 8\]"):
        read_peft(tmp_path)
    config.write_text(json.dumps(fields | {"num_virtual_tokens": "5"}))
    with pytest.raises(PromptError, match="expected whole numbers"):
        read_peft(tmp_path)
