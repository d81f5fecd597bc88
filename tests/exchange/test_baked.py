"""Baked checkpoints in plain transformers: the text that `generate` gives is the one that spoton gives."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from spoton.errors import DownloadError, ModelError, PromptError
from spoton.exchange import export_prompts
from spoton.exchange.baked import bake
from spoton.exchange.chat_template import translated
from spoton.models import FrozenModel, load_model
from spoton.prompts import SoftPrompt, starter_library
from spoton.tasks.fill import fill
from tests.exchange.conftest import TEXTS, greedy, prompt_of
from tests.tiny import tiny, tokenizer

load = partial(AutoModelForCausalLM.from_pretrained, dtype=torch.float32)


def continued(network: torch.nn.Module, tokens: PreTrainedTokenizerFast, text: str, end: int) -> list[int]:
    """What plain transformers continues a text with, cut before the end token."""
    ids = tokens(text, return_tensors="pt")
    out = network.generate(**ids, max_new_tokens=12)[0, ids["input_ids"].shape[1] :].tolist()
    return out[: out.index(end)] if end in out else out


def compare(model: FrozenModel, prompts: list[SoftPrompt], texts: list[str], folder: Path) -> None:
    """Exports prompts in one checkpoint, loads it anew, and continues every text behind every prompt."""
    (path,) = export_prompts(prompts, "baked", folder, model=model).paths
    network, tokens = load(path), AutoTokenizer.from_pretrained(path)
    record = json.loads((path / "spoton.json").read_text())
    for prompt, entry in zip(prompts, record["prompts"], strict=True):
        for text in texts:
            expected = greedy(model, prompt, text)
            assert continued(network, tokens, entry["prefix"] + text, model.end_token) == expected, text


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_generate_gives_spotons_text(family: str, tied: bool, tmp_path: Path) -> None:
    model = tiny(family, tie_word_embeddings=tied)
    prompts = [prompt_of(model), prompt_of(model, name="second", length=3, seed=2)]
    compare(model, prompts, TEXTS, tmp_path / "baked")


@pytest.mark.parametrize(
    "family", ["qwen3", "gemma2", "gemma3", "olmo2", "phi", "phi3", "gpt_neox", "opt", "falcon"]
)
def test_other_families(family: str, tmp_path: Path) -> None:
    """Among them embeddings that are scaled (Gemma) and output matrices with a bias (Phi)."""
    model = tiny(family)
    compare(model, [prompt_of(model)], TEXTS[:10], tmp_path / "baked")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_servers_that_forbid_no_tokens_never_choose_a_prompt_token(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = prompt_of(model)
    baked = bake(model, [prompt])
    network = load(baked.save(tmp_path / "baked"))
    rows = network.get_output_embeddings().weight
    assert all(torch.equal(rows[i], rows[baked.donor]) for i in baked.banned)
    free = network.generation_config
    assert free.suppress_tokens == baked.banned
    free.suppress_tokens = None
    tokens = AutoTokenizer.from_pretrained(tmp_path / "baked")
    for text in TEXTS[:20]:
        found = continued(network, tokens, baked.prefixes["toy"] + text, model.end_token)
        assert found == greedy(model, prompt, text)


def test_nothing_but_the_new_rows_changes(tmp_path: Path) -> None:
    model = tiny("llama")
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    fingerprint, words = model.fingerprint, len(model.tokenizer)
    prompt = prompt_of(model)
    network = load(bake(model, [prompt]).save(tmp_path / "baked"))
    # The weights are as open to others as the rest: a server may run under another user.
    assert len({path.stat().st_mode for path in (tmp_path / "baked").iterdir()}) == 1
    state = network.state_dict()
    for name, tensor in before.items():
        assert torch.equal(model.network.state_dict()[name], tensor)
        assert torch.equal(state[name][: len(tensor)], tensor), name
    assert torch.equal(state["model.embed_tokens.weight"][320:], prompt.value)
    assert (model.fingerprint, len(model.tokenizer)) == (fingerprint, words)


def test_a_token_without_an_embedding_is_no_more_likely_than_a_prompt_token(tmp_path: Path) -> None:
    """With logits far below zero, as of GPT-2, a row of zeros would be the most likely token."""
    network = tiny("gpt2").network
    with torch.no_grad():
        network.transformer.ln_f.bias.fill_(1.0)
        network.lm_head.weight.sub_(0.6)
    words = tokenizer()
    words.add_special_tokens({"pad_token": "[PAD]"})
    model = FrozenModel("padded", network, words)
    assert words.pad_token_id == len(model.embeddings)
    compare(model, [prompt_of(model)], TEXTS[:5], tmp_path / "baked")


def test_rows_that_the_tokenizer_leaves_unused_are_taken_first(tmp_path: Path) -> None:
    """Qwen2 and others have more rows than tokens; a new token's id is the next one of the tokenizer."""
    model = tiny("qwen2", vocab_size=330)
    baked = bake(model, [prompt_of(model, length=4)])
    assert baked.banned == list(range(len(tokenizer()), len(tokenizer()) + 4))
    assert baked.config.vocab_size == 330
    compare(model, [prompt_of(model, length=4)], TEXTS[:5], tmp_path / "baked")


def test_a_beginning_token_stands_between_prompt_and_text(tmp_path: Path) -> None:
    """spoton reads `[P; BOS; text]`; a tokenizer would put BOS before the prompt."""
    plain = tiny("llama")
    with_begin = tokenizer()
    with_begin.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    model = FrozenModel(plain.name, plain.network, with_begin)
    assert model.encode_input("it")[0] == 2
    prompt = prompt_of(model)
    assert bake(model, [prompt]).prefixes["toy"].endswith("<spot_toy_6><s>")
    compare(model, [prompt], TEXTS[:10], tmp_path / "baked")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ text }}\nVerdict:", "The film was lovely. "),
        ("Review: {{ row['star rating'] }} -> ", "so-so"),
        ("{{ text | plain | replace(\"''\", '\"') }}\nSentiment:", "It ''was'' good."),
        ("", "Just text."),
    ],
)
def test_a_chat_message_becomes_the_filled_template(template: str, message: str, tmp_path: Path) -> None:
    model = tiny("llama")
    baked = bake(model, [prompt_of(model, name="other"), prompt_of(model, template=template)])
    tokens = AutoTokenizer.from_pretrained(baked.save(tmp_path / "baked"))
    chat = [{"role": "system", "content": "toy"}, {"role": "user", "content": message}]
    expected = baked.prefixes["toy"] + fill(template, [message])[0]
    assert tokens.apply_chat_template(chat, tokenize=False) == expected
    assert not baked.notes
    assert tokens.apply_chat_template(chat[1:], tokenize=False).startswith(baked.prefixes["other"])
    with pytest.raises(Exception, match="there is: other, toy"):
        tokens.apply_chat_template([{"role": "system", "content": "nobody"}, chat[1]], tokenize=False)


def test_templates_that_a_chat_cannot_fill_are_named() -> None:
    for template in ("{{ a }} and {{ b }}", "{% if a %}{{ a }}{% endif %}", "{{ a | fifths }}", "none"):
        assert translated(template) is None
    model = tiny("llama")
    (note,) = bake(model, [prompt_of(model, template="{{ a }} {{ b }}")]).notes
    assert "'toy'" in note and "fill it yourself" in note


def test_what_cannot_be_baked() -> None:
    model = tiny("llama")
    prompt = prompt_of(model)
    with pytest.raises(PromptError, match="a name each"):
        bake(model, [prompt, prompt])
    with pytest.raises(PromptError, match="works with no other"):
        bake(tiny("gpt2"), [prompt])
    seq2seq = tiny("t5")
    with pytest.raises(ModelError, match="encoder-decoder"):
        bake(seq2seq, [prompt_of(seq2seq)])


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_the_embedded_model_with_two_starter_prompts(tmp_path: Path) -> None:
    try:
        model = load_model("smollm2-135m", dtype="float32")
    except DownloadError as error:
        pytest.skip(f"the embedded model cannot be fetched here: {error}")
    prompts = [starter_library().get(name) for name in ("sst2", "mnli")]
    compare(model, prompts, [f"{text}\nSentiment:" for text in TEXTS], tmp_path / "baked")
