"""GGUF files: what is in them, and that llama.cpp, where it is installed, says what spoton says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from spoton.errors import DownloadError, ModelError
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
    """A GGUF file in llama.cpp, keys and values in float32."""

    def __init__(self, path: Path) -> None:
        llama_cpp = pytest.importorskip(
            "llama_cpp",
            reason="llama.cpp is not installed: pip install llama-cpp-python (it compiles for minutes)",
        )
        self._llama: Any = llama_cpp.Llama(
            str(path), n_ctx=256, n_threads=1, type_k=0, type_v=0, logits_all=True, verbose=False
        )

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, special tokens among them."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=True))

    def greedy(self, ids: list[int], max_tokens: int, end: int) -> tuple[list[int], list[float]]:
        """The likeliest tokens one after the other, and how far each was ahead of the second."""
        self._llama.reset()
        self._llama.eval(ids)
        found: list[int] = []
        margins: list[float] = []
        while True:
            logits = np.asarray(self._llama.scores[self._llama.n_tokens - 1])
            second, first = np.partition(logits, -2)[-2:]
            margins.append(float(first - second))
            token = int(logits.argmax())
            if token == end or len(found) == max_tokens:
                return found, margins
            found.append(token)
            self._llama.eval([token])


def agreement(
    model: FrozenModel, prompt: SoftPrompt, texts: list[str], path: Path, max_tokens: int = 12
) -> int:
    """How many texts llama.cpp continues token by token as spoton does; any other has to be a tie."""
    prefix = bake(model, [prompt]).prefixes[prompt.card.name]
    llama = LlamaCpp(export_prompts([prompt], "gguf", path, model=model).paths[0])
    equal = 0
    for text in texts:
        ids = llama.tokens(prefix + text)
        assert ids[prompt.length :] == model.encode_input(text)
        expected = greedy(model, prompt, text, max_tokens)
        found, margins = llama.greedy(ids, max_tokens, model.end_token)
        if found == expected:
            equal += 1
            continue
        pairs = zip(found, expected, strict=False)
        apart = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
        assert margins[apart] < TIE, f"{text}: {found} instead of {expected}, {margins[apart]} ahead"
    return equal


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_llama_cpp_continues_tiny_models_as_spoton_does(family: str, tmp_path: Path) -> None:
    # llama.cpp packs heads of at least 32 numbers.
    wide = {"n_embd": 64, "n_head": 2} if family == "gpt2" else {"hidden_size": 64, "num_attention_heads": 2}
    more = {} if family == "gpt2" else {"num_key_value_heads": 1, "head_dim": 32}
    model = tiny(family, **wide, **more)
    assert agreement(model, prompt_of(model), TEXTS[:20], tmp_path / "toy.gguf") >= 18


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1200)
def test_llama_cpp_continues_the_embedded_model_as_spoton_does(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: pip install llama-cpp-python")
    try:
        model = load_model("smollm2-135m", dtype="float32")
    except DownloadError as error:
        pytest.skip(f"the embedded model cannot be fetched here: {error}")
    prompt = starter_library().get("sst2")
    texts = [f"{text}\nSentiment:" for text in TEXTS[:20]]
    assert agreement(model, prompt, texts, tmp_path / "smollm2.gguf") >= 18
