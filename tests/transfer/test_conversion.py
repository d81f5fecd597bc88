"""Conversion of prompts between models of other widths, axes and vocabularies."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cosine_similarity, normalize
from transformers import PreTrainedTokenizerFast

from spoton.errors import ModelError, PromptError
from spoton.models import FrozenModel
from spoton.prompts import Card, SoftPrompt, ensemble_of
from spoton.transfer.conversion import (
    CONVERSIONS,
    ConversionMethod,
    convert,
    linear_rows,
    relative_rows,
    shared_tokens,
    token_texts,
)
from tests.tiny import VOCABULARY, WIDTH, draw, tiny

each_method = pytest.mark.parametrize("method", CONVERSIONS)


def prompt_of(model: FrozenModel, name: str = "praise", seed: int = 1) -> SoftPrompt:
    card = Card(
        name=name, task="toy", model=model.name, model_fingerprint=model.fingerprint, labels=["yes", "no"],
        form="natural", scores={"test": {"accuracy": 80.0}}, license="MIT",
    )  # fmt: skip
    return SoftPrompt(draw(4, model.dim, seed=seed), card, key=draw(4, model.dim))


def sentencepiece(texts: list[str]) -> PreTrainedTokenizerFast:
    """A vocabulary that marks leading spaces as SentencePiece does, and has single bytes."""
    tokens = ["</s>", "<unk>", "<0x0A>", "<0x41>", *(text.replace(" ", "▁") for text in texts)]
    model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[], unk_token="<unk>")
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


def rotation(dim: int) -> torch.Tensor:
    return torch.linalg.qr(draw(dim, dim, seed=9)).Q


def with_vectors(model: FrozenModel, vectors: torch.Tensor) -> FrozenModel:
    """The same model with other embeddings of the same width."""
    with torch.no_grad():
        model.network.get_input_embeddings().weight.copy_(vectors)
    return model


@each_method
def test_the_same_model_gives_the_same_prompt(method: ConversionMethod) -> None:
    model = tiny("llama")
    prompt = prompt_of(model)
    # `relative` searches in float32, whose sums differ between processors.
    found = convert(prompt, model, model, method=method).value
    torch.testing.assert_close(found, prompt.value, rtol=1e-4, atol=1e-5)


@each_method
def test_a_model_with_turned_axes_gets_the_turned_prompt(method: ConversionMethod) -> None:
    source = tiny("llama")
    turn = rotation(WIDTH)
    target = with_vectors(tiny("llama", seed=1), source.token_vectors() @ turn)
    prompt = prompt_of(source)
    found = convert(prompt, source, target, method=method)
    torch.testing.assert_close(found.value, prompt.value @ turn, rtol=1e-3, atol=1e-4)


@each_method
def test_a_wider_model_that_sees_scaled_embeddings(method: ConversionMethod) -> None:
    """Gemma multiplies its embeddings by a constant; a prompt is put where they are multiplied already."""
    source = tiny("llama")
    target = tiny("gemma3", seed=1, hidden_size=60)
    turn = rotation(60)[:WIDTH]
    target = with_vectors(target, source.token_vectors() @ turn)
    prompt = prompt_of(source)
    found = convert(prompt, source, target, method=method)
    assert found.value.shape == (4, 60)
    rms = [vectors.square().mean().sqrt() for vectors in (source.token_vectors(), target.token_vectors())]
    lengths = [value.square().mean(1).sqrt() for value in (prompt.value, found.value)]
    torch.testing.assert_close(lengths[1] / rms[1], lengths[0] / rms[0])
    assert cosine_similarity(found.value, prompt.value @ turn).min() > 0.99


def test_relative_rows_maximise_the_cosine_of_the_kept_cosines() -> None:
    rows, source, target = draw(3, 8, seed=1), draw(60, 8, seed=2), draw(60, 6, seed=3)
    found = relative_rows(rows, source, target, top=20)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    for row, made in zip(rows, found, strict=True):
        code = torch.tensor([float(cosine_similarity(row, anchor, dim=0)) for anchor in source])
        kept, places = code.topk(20)

        def alike(y: torch.Tensor, kept: torch.Tensor = kept, places: torch.Tensor = places) -> float:
            return float(cosine_similarity(normalize(target, dim=1)[places] @ y, kept, dim=0))

        best = alike(made)
        assert all(alike(made + draw(6, seed=n, scale=0.05)) < best for n in range(50))


def test_linear_rows_are_those_of_the_least_squares_map() -> None:
    rows, source, target = draw(3, 8, seed=1), draw(60, 8, seed=2), draw(60, 6, seed=3)
    mapping = torch.linalg.lstsq(normalize(source, dim=1), normalize(target, dim=1)).solution
    expected = normalize(rows @ mapping, dim=1)
    torch.testing.assert_close(linear_rows(rows, source, target), expected, rtol=1e-4, atol=1e-5)


def test_more_anchors_than_there_are_keeps_all() -> None:
    rows, source, target = draw(3, 8, seed=1), draw(30, 8, seed=2), draw(30, 6, seed=3)
    assert torch.equal(relative_rows(rows, source, target), relative_rows(rows, source, target, top=30))


def test_tokens_are_found_across_vocabularies_of_two_kinds() -> None:
    bytes_ = tiny("llama")  # byte-level, such as Ġfilm
    words = [" film", " unknown", " The", "d"]
    pieces = FrozenModel("pieces", tiny("llama", seed=1).network, sentencepiece(words))
    own, other = shared_tokens(bytes_, pieces)
    assert bytes_.tokenizer.convert_ids_to_tokens(own) == ["d", "ĠThe", "Ġfilm"]  # in the order of the source
    assert pieces.tokenizer.convert_ids_to_tokens(other) == ["d", "▁The", "▁film"]


def test_texts_of_tokens() -> None:
    texts = token_texts(tiny("llama"))
    assert {" ", "\n", "A"} <= texts.keys()
    assert not {"</s>", "<pad>"} & texts.keys()
    assert all(text.isascii() for text in texts)  # the other bytes are parts of characters
    pieces = token_texts(FrozenModel("pieces", tiny("llama").network, sentencepiece([" café", "a b"])))
    assert pieces == {" café": 4, "a b": 5}


def test_tokens_without_a_row_are_left_out() -> None:
    texts = [f" w{n}" for n in range(VOCABULARY + 10)]
    model = FrozenModel("pieces", tiny("llama").network, sentencepiece(texts))
    assert max(token_texts(model).values()) == VOCABULARY - 1


def test_vocabularies_without_a_common_token() -> None:
    source = tiny("llama")
    target = FrozenModel("pieces", tiny("llama", seed=1).network, sentencepiece([" слово", " дом"]))
    with pytest.raises(ModelError, match=r"no token in common.*Tune a prompt for pieces from scratch"):
        convert(prompt_of(source), source, target)


@each_method
def test_too_few_common_tokens(method: ConversionMethod) -> None:
    source = tiny("llama")
    target = FrozenModel("pieces", tiny("llama", seed=1).network, sentencepiece([" film", "a"]))
    with pytest.raises(ModelError, match=r"2 tokens of .* at least 48.* from scratch"):
        convert(prompt_of(source), source, target, method=method)


def test_a_relative_representation_of_too_few_anchors() -> None:
    model = tiny("llama")
    with pytest.raises(ModelError, match=r"^10 tokens .*Keep more of them"):
        convert(prompt_of(model), model, model, top=10)


def test_the_card_says_where_the_start_comes_from() -> None:
    source, target = tiny("llama"), tiny("gemma3", seed=1)
    prompt = prompt_of(source)
    found = convert(prompt, source, target)
    card = found.card
    assert (found.key, found.start, card.scores, card.calibration) == (None, None, {}, None)
    assert (card.model, card.model_fingerprint) == (target.name, target.fingerprint)
    assert [(one.name, one.hash) for one in card.parents] == [("praise", prompt.content_hash())]
    shared = len(shared_tokens(source, target)[0])
    assert (
        card.source == f"converted from tiny-llama ({source.fingerprint}): relative, {shared} shared tokens"
    )
    assert "start to tune from" in card.notes
    assert (card.task, card.labels, card.form, card.license) == ("toy", ["yes", "no"], "natural", "MIT")
    assert torch.equal(found.value, convert(prompt, source, target).value)


def test_prompts_that_cannot_be_converted() -> None:
    source, target = tiny("llama"), tiny("gemma3", seed=1)
    with pytest.raises(PromptError, match="works with no other"):
        convert(prompt_of(target), source, target)
    both = ensemble_of([prompt_of(source, "a"), prompt_of(source, "b", seed=2)])
    with pytest.raises(PromptError, match="needs one prompt"):
        convert(both, source, target)
