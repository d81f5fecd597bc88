"""GGUF files: what is in them, and that llama.cpp, where it is installed, says what spoton says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import httpx2 as httpx
import numpy as np
import pytest
import torch

from spoton.errors import DownloadError, ModelError
from spoton.evaluation import predict
from spoton.exchange import export_prompts
from spoton.exchange.baked import bake
from spoton.exchange.gguf import export_gguf
from spoton.models import FrozenModel, load_model
from spoton.prompts import SoftPrompt, starter_library
from tests.exchange.conftest import TEXTS, greedy, prompt_of
from tests.tiny import tiny

# Tokens whose logits are nearer than this are a tie for two programs that add numbers in another order.
TIE = 2e-3


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_the_file_holds_the_checkpoint(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = prompt_of(model)
    (path,) = export_prompts([prompt], "gguf", tmp_path / "toy.gguf", model=model).paths
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    rows = np.asarray(tensors["token_embd.weight"].data)
    assert np.array_equal(rows[:320], model.embeddings.numpy())
    assert np.array_equal(rows[320:], prompt.value.numpy())
    assert tensors["output.weight"].data.shape == rows.shape
    assert len(tensors) >= len(list(model.network.parameters()))
    field = reader.get_field("tokenizer.ggml.tokens")
    words = [bytes(field.parts[i]).decode() for i in field.data]
    assert words[320:] == [f"<spot_toy_{i}>" for i in range(7)]
    kinds = reader.get_field("tokenizer.ggml.token_type").contents()
    assert kinds[320:] == [gguf.TokenType.CONTROL] * 7
    record = json.loads(reader.get_field("spoton.record").contents())
    assert record["prompts"][0]["hash"] == prompt.content_hash()


def test_weights_keep_their_type(tmp_path: Path) -> None:
    model = tiny("llama")
    model.network.to(torch.bfloat16)
    path = export_gguf(bake(model, [prompt_of(model)]), tmp_path / "toy.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["token_embd.weight"] == "BF16" and kinds["output_norm.weight"] == "F32"


def test_models_that_are_not_written_are_refused(tmp_path: Path) -> None:
    model = tiny("olmo2")
    with pytest.raises(ModelError, match=r"olmo2 model.*convert_hf_to_gguf"):
        export_gguf(bake(model, [prompt_of(model)]), tmp_path / "toy.gguf")
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    model = tiny("llama", rope_parameters=stretched)
    with pytest.raises(ModelError, match="rotary positions of type 'linear'"):
        export_gguf(bake(model, [prompt_of(model)]), tmp_path / "toy.gguf")
    assert not (tmp_path / "toy.gguf").exists()


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
            "a sliding window",
        ),
        ("llama", {"hidden_act": "gelu"}, "the activation gelu"),
        ("gpt2", {"activation_function": "relu"}, "the activation relu"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scaled by the number of its layer"),
        ("gpt2", {"scale_attn_weights": False}, "attention without a scale"),
    ],
)
def test_layers_that_llama_cpp_would_compute_in_another_way_are_refused(
    family: str, changes: dict[str, object], told: str, tmp_path: Path
) -> None:
    model = tiny(family, **changes)
    with pytest.raises(ModelError, match=told):
        export_gguf(bake(model, [prompt_of(model)]), tmp_path / "toy.gguf")


def test_tokenizers_without_a_known_name_are_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    model = tiny("llama")
    baked = bake(model, [prompt_of(model)])
    baked.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ModelError, match="Punctuation, ByteLevel"):
        export_gguf(baked, tmp_path / "toy.gguf")


class LlamaCpp:
    """A GGUF file in llama.cpp's own server, keys and values in float32."""

    def __init__(self, path: Path) -> None:
        llama_cpp = pytest.importorskip(
            "xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp"
        )
        given = llama_cpp.CommonParams()
        given.model.path = str(path)
        given.n_ctx, given.n_parallel, given.port, given.warmup, given.verbosity = 256, 1, 0, False, 0
        given.cpuparams.n_threads = 1
        given.cache_type_k = given.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
        given.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = llama_cpp.Server(given)  # stops when this is collected

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Posts to the server."""
        answer = httpx.post(self._server.listening_address + path, json=body, timeout=120)
        return dict(answer.raise_for_status().json())

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, special tokens among them."""
        return list(self.ask("/tokenize", content=text, add_special=False, parse_special=True)["tokens"])

    def chat(self, *messages: tuple[str, str], max_tokens: int = 12) -> str:
        """The answer to messages of (role, content), put together by the file's chat template."""
        said = [{"role": role, "content": content} for role, content in messages]
        answer = self.ask("/v1/chat/completions", messages=said, max_tokens=max_tokens, temperature=0)
        return str(answer["choices"][0]["message"]["content"])

    def greedy(self, ids: list[int], max_tokens: int) -> list[int]:
        """The likeliest tokens one after the other, without the one that ends the text."""
        return list(self._complete(ids, max_tokens)["tokens"])

    def margin(self, ids: list[int]) -> float:
        """How far the logit of the likeliest next token is ahead of the second."""
        (token,) = self._complete(ids, 1)["completion_probabilities"]
        first, second = (one["logprob"] for one in token["top_logprobs"])
        return float(first - second)

    def _complete(self, ids: list[int], max_tokens: int) -> dict[str, Any]:
        greedy = {"temperature": 0, "n_probs": 2, "return_tokens": True, "cache_prompt": False}
        return self.ask("/completion", prompt=ids, n_predict=max_tokens, **greedy)


def agreement(
    model: FrozenModel, prompt: SoftPrompt, llama: LlamaCpp, texts: list[str], max_tokens: int = 12
) -> int:
    """How many texts llama.cpp continues token by token as spoton does; any other has to be a tie."""
    baked = bake(model, [prompt])
    equal = 0
    for text in texts:
        ids = llama.tokens(baked.prefixes[prompt.card.name] + text)
        assert ids[prompt.length :] == model.encode_input(text)
        expected = greedy(model, prompt, text, max_tokens)
        found = llama.greedy(ids, max_tokens)
        # The new tokens share an output row with one that tiny random models do choose: an exact tie.
        same = [baked.donor if token in baked.banned else token for token in found]
        if same == expected:
            equal += 1
            continue
        pairs = enumerate(zip(same, expected, strict=False))
        apart = next((place for place, (a, b) in pairs if a != b), min(len(same), len(expected)))
        if found[:apart] == expected[:apart]:
            margin = llama.margin(ids + expected[:apart])
            assert margin < TIE, f"{text}: {found} instead of {expected}, {margin} ahead"
    return equal


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_llama_cpp_continues_tiny_models_as_spoton_does(family: str, tmp_path: Path) -> None:
    # llama.cpp packs heads of at least 32 numbers.
    wide = {"n_embd": 64, "n_head": 2} if family == "gpt2" else {"hidden_size": 64, "num_attention_heads": 2}
    more = {} if family == "gpt2" else {"num_key_value_heads": 1, "head_dim": 32}
    model = tiny(family, **wide, **more)
    prompt = prompt_of(model)
    llama = LlamaCpp(export_prompts([prompt], "gguf", tmp_path / "toy.gguf", model=model).paths[0])
    assert agreement(model, prompt, llama, TEXTS[:20]) >= 18


def test_llama_cpp_fills_the_template_of_the_prompt_that_the_system_message_names(tmp_path: Path) -> None:
    model = tiny("llama", hidden_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    prompts = [
        prompt_of(model, name="first", template="{{ text }}\nVerdict:"),
        prompt_of(model, name="second", seed=2, template="Is it {{ text | replace('good', 'bad') }}?"),
    ]
    prefixes = bake(model, prompts).prefixes
    llama = LlamaCpp(export_prompts(prompts, "gguf", tmp_path / "toy.gguf", model=model).paths[0])

    def filled(*messages: dict[str, str]) -> str:
        return str(llama.ask("/apply-template", messages=list(messages))["prompt"])

    text = {"role": "user", "content": " A good film. "}
    assert filled(text) == f"{prefixes['first']}A good film. \nVerdict:"
    named = {"role": "system", "content": "second"}
    assert filled(named, text) == f"{prefixes['second']}Is it  A bad film. ?"
    with pytest.raises(httpx.HTTPStatusError) as caught:
        filled({"role": "system", "content": "third"}, text)
    assert "there is: first, second" in caught.value.response.text


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1200)
def test_llama_cpp_says_of_the_embedded_model_what_spoton_says(tmp_path: Path) -> None:
    try:
        model = load_model("smollm2-135m", dtype="float32")
    except DownloadError as error:
        pytest.skip(f"the embedded model cannot be fetched here: {error}")
    sentiment, question = (starter_library().get(name) for name in ("sst2", "trec"))
    path = tmp_path / "smollm2.gguf"
    llama = LlamaCpp(export_prompts([sentiment, question], "gguf", path, model=model).paths[0])
    texts = [f"{text}\nSentiment:" for text in TEXTS[:20]]
    assert agreement(model, sentiment, llama, texts) >= 18
    for prompt in (sentiment, question):
        predictions = predict(model, prompt, TEXTS[:10], calibrate=False)
        system = ("system", prompt.card.name)
        answers = [llama.chat(system, ("user", text), max_tokens=1).strip() for text in TEXTS[:10]]
        agreeing = [answer == one.answer for answer, one in zip(answers, predictions, strict=True)]
        assert sum(agreeing) >= 9, (answers, predictions)
