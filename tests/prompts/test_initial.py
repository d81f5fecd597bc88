"""How a prompt begins: each strategy against its definition, seeds, and arguments that make no sense."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from spoton.errors import PromptError
from spoton.prompts import (
    common_token_ids,
    from_combination,
    from_label_words,
    from_prompt,
    from_text,
    from_uniform,
    from_vocabulary,
)

# Row i is [i, i, i], so that a row of a prompt tells which token it came from.
EMBEDDINGS = torch.arange(50.0).unsqueeze(1).expand(50, 3)

lengths = st.integers(1, 40)
seeds = st.integers(0, 2**32)
token_ids = st.lists(st.integers(0, 49), min_size=1, max_size=30, unique=True)


def tokens_of(prompt: torch.Tensor) -> list[float]:
    assert prompt.dtype == torch.float32 and prompt.shape[1] == 3
    assert torch.equal(prompt, prompt[:, :1].expand_as(prompt))
    return prompt[:, 0].tolist()


@settings(deadline=None)
@given(lengths, seeds, st.floats(0.01, 10))
def test_uniform_stays_within_its_scale(length: int, seed: int, scale: float) -> None:
    prompt = from_uniform(length, 7, seed, scale)
    assert prompt.shape == (length, 7) and prompt.dtype == torch.float32
    assert prompt.abs().max() <= np.float32(scale)
    assert torch.equal(prompt, from_uniform(length, 7, seed, scale))


def test_uniform_is_uniform() -> None:
    numbers = from_uniform(100, 1000, seed=0)
    assert numbers.mean().item() == pytest.approx(0, abs=0.005)
    assert numbers.var().item() == pytest.approx(1 / 12, rel=0.02)  # of U[-0.5, 0.5]
    assert numbers.min() < -0.499 and numbers.max() > 0.499


@settings(deadline=None)
@given(token_ids, lengths, seeds)
def test_vocabulary_repeats_no_token_unless_it_must(ids: list[int], length: int, seed: int) -> None:
    chosen = tokens_of(from_vocabulary(EMBEDDINGS, ids, length, seed))
    assert len(chosen) == length and set(chosen) <= set(ids)
    if length <= len(ids):
        assert len(set(chosen)) == length
    assert chosen == tokens_of(from_vocabulary(EMBEDDINGS, ids, length, seed))


def test_seeds_differ_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    ids = list(range(50))
    assert tokens_of(from_vocabulary(EMBEDDINGS, ids, 20, 1)) != tokens_of(
        from_vocabulary(EMBEDDINGS, ids, 20, 2)
    )
    assert not torch.equal(from_uniform(2, 3, seed=1), from_uniform(2, 3, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=4), max_size=6), lengths, seeds)
def test_labels_come_first_as_means_of_their_tokens(labels: list[list[int]], length: int, seed: int) -> None:
    common = [40, 41, 42]
    rows = tokens_of(from_label_words(EMBEDDINGS, labels, common, length, seed))
    assert len(rows) == length
    assert rows[: len(labels)] == pytest.approx([float(np.mean(ids)) for ids in labels][:length])
    assert set(rows[len(labels) :]) <= set(common)


@settings(deadline=None)
@given(st.lists(st.integers(0, 49), min_size=1), lengths)
def test_text_is_repeated_or_cut(ids: list[int], length: int) -> None:
    assert tokens_of(from_text(EMBEDDINGS, ids, length)) == (ids * length)[:length]


def test_bfloat16_embeddings_give_a_float32_prompt_apart_from_them() -> None:
    embeddings = torch.nn.Parameter(EMBEDDINGS.to(torch.bfloat16))
    prompt = from_text(embeddings, [3, 1], 2)
    assert prompt.dtype == torch.float32 and not prompt.requires_grad
    prompt.zero_()
    assert embeddings[3, 0] == 3


def test_from_prompt_is_a_resized_copy() -> None:
    source = EMBEDDINGS[:3].clone()
    assert torch.equal(from_prompt(source, 3), source)
    assert tokens_of(from_prompt(source, 5)) == [0, 1, 2, 0, 1]
    from_prompt(source, 3).fill_(9)
    assert tokens_of(source) == [0, 1, 2]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1e6)), min_size=1, max_size=5), lengths)
def test_combination_is_the_weighted_average(sources: list[tuple[int, float]], length: int) -> None:
    values = [EMBEDDINGS[:rows] for rows, _ in sources]
    weights = [weight for _, weight in sources]
    if not sum(weights) > 0:
        return
    combined = from_combination(values, weights, length)
    expected = sum(
        weight / sum(weights) * from_prompt(value, length).double()
        for weight, value in zip(weights, values, strict=True)
    )
    torch.testing.assert_close(combined.double(), expected, rtol=1e-5, atol=1e-5)


def test_combination_of_one_is_that_prompt() -> None:
    assert torch.equal(from_combination([EMBEDDINGS], [0.3], 50), EMBEDDINGS)


@pytest.mark.parametrize(
    "weights", [[0.0, 0.0], [1.0, -0.5], [1.0, float("nan")], [float("inf"), 1.0], [1e308, 1e308]]
)
def test_combination_with_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(PromptError, match="weights"):
        from_combination([EMBEDDINGS, EMBEDDINGS], weights, 5)


def test_combination_of_what_does_not_go_together() -> None:
    with pytest.raises(PromptError, match="0 prompts"):
        from_combination([], [], 5)
    with pytest.raises(PromptError, match="2 prompts and 1 weights"):
        from_combination([EMBEDDINGS, EMBEDDINGS], [1.0], 5)
    with pytest.raises(PromptError, match=r"dimensions \[3, 2\]"):
        from_combination([EMBEDDINGS, EMBEDDINGS[:, :2]], [1.0, 1.0], 5)


@pytest.mark.parametrize("length", [0, -1])
def test_no_prompt_has_no_rows(length: int) -> None:
    for begin in (
        lambda: from_uniform(length, 3, 0),
        lambda: from_vocabulary(EMBEDDINGS, [1], length, 0),
        lambda: from_label_words(EMBEDDINGS, [[1]], [1], length, 0),
        lambda: from_text(EMBEDDINGS, [1], length),
        lambda: from_prompt(EMBEDDINGS, length),
        lambda: from_combination([EMBEDDINGS], [1.0], length),
    ):
        with pytest.raises(PromptError, match="at least 1"):
            begin()


def test_ids_that_are_missing_or_of_another_model() -> None:
    with pytest.raises(PromptError, match="no common tokens"):
        from_vocabulary(EMBEDDINGS, [], 3, 0)
    with pytest.raises(PromptError, match="label word has no tokens"):
        from_label_words(EMBEDDINGS, [[1], []], [1], 3, 0)
    with pytest.raises(PromptError, match="text to start from"):
        from_text(EMBEDDINGS, [], 3)
    for ids in ([50], [-1]):
        with pytest.raises(PromptError, match="50 embeddings"):
            from_text(EMBEDDINGS, ids, 3)


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")


def test_common_tokens_of_a_unigram_vocabulary_are_its_first() -> None:
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("▁", -2.0), (",", -3.0), ("s", -3.1), ("▁the", -3.2)]
    tokenizer = wrapped(Tokenizer(models.Unigram(pieces, unk_id=1)))
    assert common_token_ids(tokenizer) == [2, 3, 4, 5]
    assert common_token_ids(tokenizer, count=2) == [2, 3]


def test_common_tokens_of_a_bpe_vocabulary_are_words_in_merge_order() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "<pad>"], show_progress=False)
    tokenizer.train_from_iterator(["the film was good, über good! 1999 1999"] * 5 + ["the film"] * 9, trainer)
    fast = wrapped(tokenizer)
    fast.add_tokens(["Ġadded"])
    common = common_token_ids(fast)
    tokens = fast.convert_ids_to_tokens(common)
    assert common == sorted(common)
    assert {"Ġthe", "Ġfilm", "Ġgood", "Ġwas"} <= set(tokens)
    assert all(token.startswith("Ġ") and token[1:].isalpha() and token.isascii() is False for token in tokens)
    assert tokens.index("Ġthe") < tokens.index("Ġwas")
    assert not {"Ġadded", "Ġ1999", "<unk>"} & set(tokens)
    assert common_token_ids(fast, count=3) == common[:3]


def test_common_tokens_without_word_marks_are_all_but_the_special_ones() -> None:
    tokenizer = wrapped(Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "b": 2, "a": 3}, "<unk>")))
    assert common_token_ids(tokenizer) == [2, 3]
