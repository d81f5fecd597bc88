"""Odd tokenizers: what a tokenizer pads, prefixes or adds never changes what the model makes of the same token ids."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spoton.models import Batch, FrozenModel, engine_for
from tests.models.naive import assert_equal_losses, naive_continuation, naive_loss
from tests.tiny import VOCABULARY, WIDTH, draw, tiny, tokenizer

ADDED = {"bos": "<s> $A", "eos": "$A </s>", "both": "<s> $A </s>"}


def odd(
    *, bos: bool = True, pad: bool = True, prefix: bool = False, adds: str | None = None, side: str = "right"
) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with other habits."""
    rules = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if adds:
        rules.post_processor = TemplateProcessing(
            single=ADDED[adds], special_tokens=[("<s>", 2), ("</s>", 0)]
        )
    special: dict[str, Any] = {"bos_token": "<s>"} if bos else {}
    special |= {"pad_token": "<pad>"} if pad else {}
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="</s>", padding_side=side, **special)


@cache
def usual(family: str) -> FrozenModel:
    return tiny(family)


habits = st.fixed_dictionaries(
    {
        "bos": st.booleans(),
        "pad": st.booleans(),
        "prefix": st.booleans(),
        "adds": st.sampled_from([None, *ADDED]),
        "side": st.sampled_from(["left", "right"]),
    }
)
# 0 ends, 1 pads and 2 begins a text; a model may meet them anywhere in the ids.
tokens = st.integers(0, VOCABULARY - 1)
row = st.tuples(
    st.lists(tokens, min_size=1, max_size=8), st.lists(tokens, min_size=1, max_size=3), st.integers(0, 1)
)
LABELS = [[30], [31, 32], [33, 0]]


@pytest.mark.parametrize("family", ["llama", "opt", "bloom", "t5", "bart"])
@settings(deadline=None, max_examples=15)
@given(habit=habits, rows=st.lists(row, min_size=1, max_size=4))
def test_habits_of_the_tokenizer_do_not_change_what_the_model_makes_of_ids(
    family: str, habit: dict[str, Any], rows: list[tuple[list[int], list[int], int]]
) -> None:
    model = FrozenModel("odd", usual(family).network, odd(**habit))
    inputs, targets, own = (list(part) for part in zip(*rows, strict=True))
    batch = Batch(inputs, targets, own)
    prompts = [draw(4, WIDTH), draw(2, WIDTH, seed=1)]
    engine = engine_for(model)
    chosen = [prompts[k] for k in own]
    with torch.no_grad():
        naive = [naive_loss(model, *one) for one in zip(chosen, inputs, targets, strict=True)]
        each = [
            [-naive_loss(model, value, text, label) for label in LABELS]
            for value, text in zip(chosen, inputs, strict=True)
        ]
        assert_equal_losses(engine.losses(prompts, batch), torch.stack(naive))
    assert_equal_losses(engine.scorer(prompts)(batch, LABELS), torch.tensor(each))
    expected = [naive_continuation(model, *one, 3) for one in zip(chosen, inputs, strict=True)]
    assert engine.generator(prompts)(batch, 3) == expected


words = st.lists(
    st.sampled_from(["The", "film", "was", "lovely", "dull", "yes", "no", "Verdict:", "ü", "7"]),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(habit=habits, parts=words, end=st.booleans())
def test_targets_come_back_as_they_went_in(habit: dict[str, Any], parts: list[str], end: bool) -> None:
    text = " ".join(parts)
    for family in ("llama", "t5"):
        model = FrozenModel("odd", usual(family).network, odd(**habit))
        ids = model.encode_target(text, end=end)
        assert model.decode(ids) == text
        ends = end or model.is_encoder_decoder
        assert ids.count(model.end_token) == ends and (ids[-1] == model.end_token) == ends
        assert not {1, 2} & set(ids)  # neither padding nor the beginning of a text belongs to a target


@settings(deadline=None, max_examples=60)
@given(habit=habits, parts=words)
def test_inputs_come_back_as_they_went_in(habit: dict[str, Any], parts: list[str]) -> None:
    text = " ".join(parts)
    model = FrozenModel("odd", usual("llama").network, odd(**habit))
    ids = model.encode_input(text)
    assert model.decode(ids) == text
    assert ids.count(2) == (habit["adds"] in ("bos", "both"))


@settings(deadline=None, max_examples=60)
@given(habit=habits, parts=words, target=words)
def test_a_target_continues_its_input(habit: dict[str, Any], parts: list[str], target: list[str]) -> None:
    """Together they are the ids of the joined text, so that the model reads what it would read of plain text."""
    model = FrozenModel("odd", usual("llama").network, odd(**habit))
    text, answer = " ".join(parts), " ".join(target)
    joined = [*model.encode_input(text), *model.encode_target(answer, end=False)]
    assert joined == model.encode_input(f"{text} {answer}")


def test_an_end_token_that_the_text_itself_has_stays() -> None:
    for adds in (None, "eos"):
        model = FrozenModel("odd", usual("llama").network, odd(adds=adds))
        assert model.encode_input("The film</s>")[-1] == 0
    assert FrozenModel("odd", usual("t5").network, odd(adds="eos")).encode_input("The film")[-1] == 0


def _value() -> Tensor:
    return draw(4, WIDTH)


def test_generation_needs_no_padding_token() -> None:
    """Rows of unlike lengths are padded with what the mask hides, whatever it is."""
    model = FrozenModel("padless", usual("llama").network, odd(bos=False, pad=False))
    assert model.tokenizer.pad_token_id is None
    texts = [[5, 6, 7], [9]]
    found = engine_for(model).generator(_value()[None])(Batch(texts, [[], []]), 4)
    assert found == [naive_continuation(model, _value(), text, 4) for text in texts]


def prepending() -> PreTrainedTokenizerFast:
    """A tokenizer like those of Llama 2 and Mistral 7B, which put a space of their own before every text."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "</s>"], initial_alphabet=["▁", ":"], show_progress=False
    )
    bpe.train_from_iterator(["the soup was good", "a bad day", "Answer:"] * 30, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize("text", ["good", "bad day", "a soup: good"])
@pytest.mark.parametrize("make", [prepending, tokenizer])
def test_a_target_has_the_tokens_it_has_behind_its_input(make: Any, text: str) -> None:
    model = FrozenModel("odd", usual("llama").network, make())
    for before in ("the soup was\nAnswer:", "a bad day"):
        whole = model.tokenizer.encode(f"{before} {text}", add_special_tokens=False)
        alone = model.tokenizer.encode(before, add_special_tokens=False)
        assert alone + model.encode_target(text, end=False) == whole
    assert model.encode_target(text, end=True) == [*model.encode_target(text, end=False), model.end_token]
