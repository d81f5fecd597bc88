"""The frozen model: never changed, recognized by its fingerprint, and exact about tokens."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.utils.quantization_config import QuantizationMethod

from spoton.errors import ModelError
from spoton.models import FrozenModel, engine_for
from tests.models.naive import ragged
from tests.tiny import FAMILIES, VOCABULARY, WIDTH, draw, tiny, tokenizer


def test_no_weight_requires_a_gradient_and_nothing_drops_out() -> None:
    model = tiny("llama")
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert not model.network.training


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", {"num_hidden_layers": 2}),
        ("llama", {"num_attention_heads": 4}),
        ("gpt2", {"n_layer": 1}),
        ("gpt2", {"n_head": 2}),
        ("gpt2", {"activation_function": "relu"}),
        ("opt", {"ffn_dim": 32}),
        ("bloom", {"n_layer": 1}),
        ("mpt", {"n_layers": 1}),
        ("t5", {"num_decoder_layers": 1}),
        ("bart", {"encoder_layers": 1}),
        ("bart", {"decoder_attention_heads": 2}),
    ],
)
def test_fingerprint_differs_for_another_architecture(family: str, change: dict[str, Any]) -> None:
    """Also where the embedding matrix is the very same."""
    one, other = tiny(family), tiny(family, **change)
    with torch.no_grad():
        other.embeddings.copy_(one.embeddings)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("family", FAMILIES)
def test_token_vectors_are_what_the_network_reads(family: str) -> None:
    model = tiny(family)
    vectors = model.token_vectors()
    assert vectors.shape == (VOCABULARY, WIDTH) and vectors.dtype == torch.float32
    ids = torch.tensor([[5, 6, 7, 0]])
    options = {"decoder_input_ids": torch.tensor([[1]])} if model.is_encoder_decoder else {}
    with torch.no_grad():
        by_ids = model.network(input_ids=ids, **options).logits
        by_vectors = model.network(inputs_embeds=vectors[ids], **options).logits
    torch.testing.assert_close(by_vectors, by_ids, rtol=1e-5, atol=1e-5)


def test_longest_sequence() -> None:
    assert tiny("llama").max_length == 128
    assert tiny("gpt2").max_length == 128
    assert tiny("mpt").max_length == 128
    assert tiny("bart").max_length == 128
    assert tiny("t5").max_length is None  # relative positions


def test_a_target_continues_the_input_as_a_word() -> None:
    model = tiny("llama")
    assert model.tokenizer.convert_ids_to_tokens(model.encode_target("yes", end=False)) == ["Ġyes"]
    assert model.encode_target("yes", end=True) == [*model.encode_target("yes", end=False), 0]
    assert model.decode(model.encode_target("yes no", end=True)) == "yes no"


def test_an_encoder_decoder_target_stands_alone_and_always_ends() -> None:
    model = tiny("t5")
    for end in (False, True):
        ids = model.encode_target("no", end=end)
        assert ids[-1] == model.end_token and model.decode(ids) == "no"
        assert ids[:-1] == model.tokenizer.encode("no")


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    endless = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer)
    model = FrozenModel("endless", tiny("llama").network, endless)
    with pytest.raises(ModelError, match="endless has no end-of-sequence token"):
        model.encode_target("yes", end=True)


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao", "gptq"])
def test_weights_that_transformers_marks_as_quantized_are_refused(method: str) -> None:
    network = tiny("llama").network
    network.is_quantized, network.quantization_method = True, QuantizationMethod(method)
    with pytest.raises(
        ModelError, match=rf"small holds quantized weights \({method}\).*without quantization"
    ):
        FrozenModel("small", network, tokenizer())


def test_weights_decoded_from_gguf_are_taken() -> None:
    """transformers marks them as quantized, but has decoded them."""
    network = tiny("llama").network
    network.is_quantized, network.quantization_method = True, "gguf"
    assert FrozenModel("decoded", network, tokenizer()).dim == WIDTH


def test_weights_that_were_quantized_by_hand_are_refused() -> None:
    network = tiny("llama").network
    whole = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    network.model.layers[0].mlp.up_proj.weight = whole
    with pytest.raises(ModelError, match=r"quantized weights \(int8\)"):
        FrozenModel("small", network, tokenizer())


def test_weights_in_a_type_of_their_own_are_refused() -> None:
    class Params4bit(torch.nn.Parameter):
        """As bitsandbytes has one."""

    network = tiny("llama").network
    network.model.layers[0].mlp.up_proj.weight = Params4bit(torch.zeros(2, 2), requires_grad=False)
    with pytest.raises(ModelError, match=r"quantized weights \(Params4bit\)"):
        FrozenModel("small", network, tokenizer())


def test_layers_that_pytorch_quantized_are_refused() -> None:
    class Packed(torch.nn.Module):
        """Like torch.ao's linear layers: the weight is a method, and no gradient passes."""

        def weight(self) -> torch.Tensor:
            return torch.zeros(2, 2)

    network = tiny("llama").network
    network.model.layers[0].mlp.up_proj = Packed()
    with pytest.raises(ModelError, match=r"quantized weights \(.*Packed\)"):
        FrozenModel("small", network, tokenizer())


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_neither_loss_nor_gradient(family: str) -> None:
    """It acts in training mode only, and a frozen model is never in it."""
    model, value = tiny(family), draw(4, WIDTH).requires_grad_()

    def numbers() -> tuple[torch.Tensor, torch.Tensor]:
        losses = engine_for(model).losses(value[None], ragged())
        return losses.detach(), torch.autograd.grad(losses.sum(), value)[0]

    losses, gradient = numbers()
    assert model.network.supports_gradient_checkpointing
    model.network.gradient_checkpointing_enable()
    with_it, same = numbers()
    assert torch.equal(with_it, losses) and torch.equal(same, gradient)


def test_describe_names_what_matters() -> None:
    model = tiny("llama")
    facts = model.describe()
    assert facts["name"] == "tiny-llama" and facts["family"] == "llama"
    assert facts["dim"] == WIDTH and facts["dtype"] == "float32" and facts["device"] == "cpu"
    assert facts["parameters"] == sum(weight.numel() for weight in model.network.parameters())
    assert facts["fingerprint"] == model.fingerprint


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("copied", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_a_model_with_an_engine_is_pickled_and_copied(
    family: str, copied: Callable[[FrozenModel], FrozenModel]
) -> None:
    """As worker processes get it. The engine stays behind: it would run the weights of the first model."""
    model = tiny(family)
    engine_for(model)
    other = copied(model)
    assert not other.derived and model.derived
    assert other.fingerprint == model.fingerprint and not other.network.training
    assert type(engine_for(other)) is type(engine_for(model))
    with torch.no_grad():
        other.embeddings.zero_()
    assert model.embeddings.any()
