"""The encoder-decoder engine against the naive formula, and generation against one argmax after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig

from spoton.errors import ModelError
from spoton.models import Batch, FrozenModel, engine_for
from spoton.models.t5_layers import grouped
from tests.models.naive import (
    INPUTS,
    TARGETS,
    assert_equal_gradients,
    assert_equal_losses,
    naive_continuation,
    naive_loss,
    naive_losses,
    ragged,
)
from tests.tiny import VOCABULARY, WIDTH, draw, tiny, tokenizer

T5_FAMILIES = ("t5", "t5_v1_1", "mt5", "umt5")
FAMILIES = (*T5_FAMILIES, "t5gemma", "bart")
SCALED = ("pegasus", "marian", "mvp")


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradient_equal_the_naive_formula(family: str) -> None:
    model, value = tiny(family), draw(5, WIDTH).requires_grad_()
    engine = engine_for(model)
    assert engine.name == ("t5" if family in T5_FAMILIES else "encoder-decoder")
    found, expected = engine.losses(value[None], ragged()), naive_losses(model, [value], ragged())
    assert_equal_losses(found, expected)
    ours, theirs = (torch.autograd.grad(losses.sum(), value)[0] for losses in (found, expected))
    assert_equal_gradients(ours, theirs)


@pytest.mark.parametrize("family", [*FAMILIES, *SCALED, "bart_scaled"])
def test_rows_of_a_vocabulary_are_read_like_their_tokens(family: str) -> None:
    """Some encoders scale the embeddings of their tokens, and not those that they are given."""
    model, batch = tiny(family), ragged()
    prompt, start = [5, 7, 9], model.network.config.decoder_start_token_id
    found = engine_for(model).losses(model.token_vectors()[prompt][None], batch)
    for loss, text, target in zip(found, batch.inputs, batch.targets, strict=True):
        read = torch.tensor([[start, *target[:-1]]])
        logits = model.network(input_ids=torch.tensor([[*prompt, *text]]), decoder_input_ids=read).logits[0]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(list(target)), reduction="sum")
        assert_equal_losses(loss, expected)


def test_an_encoder_that_reads_embeddings_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("pegasus")
    monkeypatch.setattr(model.network.get_encoder(), "embed_scale", 3.0, raising=True)
    monkeypatch.setattr(
        model.network.get_encoder().embed_tokens, "forward", lambda ids: model.embeddings[ids].flip(-1)
    )
    table = torch.nn.Embedding.from_pretrained(model.embeddings.detach())
    monkeypatch.setattr(model.network, "get_input_embeddings", lambda: table)
    with pytest.raises(ModelError, match="makes something else of embeddings"):
        engine_for(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_prompts_of_unlike_lengths_in_one_batch(family: str) -> None:
    model, batch = tiny(family), ragged([0, 1, 1, 0])
    prompts = [draw(5, WIDTH).requires_grad_(), draw(2, WIDTH, seed=1).requires_grad_()]
    found, expected = engine_for(model).losses(prompts, batch), naive_losses(model, prompts, batch)
    assert_equal_losses(found, expected)
    ours, theirs = (torch.autograd.grad(losses.sum(), prompts) for losses in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert_equal_gradients(one, other)


def test_rows_of_like_length_share_a_group() -> None:
    groups = grouped([22, 40, 23, 39, 4])
    assert [group.rows for group in groups] == [(1, 3), (2, 0), (4,)]
    assert [(group.start, group.stop, group.length) for group in groups] == [
        (0, 80, 40),
        (80, 126, 23),
        (126, 130, 4),
    ]
    assert groups[0].lengths == (40, 39)


@pytest.mark.parametrize("family", T5_FAMILIES)
@pytest.mark.parametrize("target", [1, 4, 7])
def test_padded_groups_and_long_targets(family: str, target: int) -> None:
    """Rows of 21 to 26 tokens: two of them share a group. Up to 4 targets read the states without projecting them."""
    # Seed 0 puts an input of T5's ReLU at 6e-9, where its slope is a matter of rounding.
    model, value = tiny(family), draw(20, WIDTH, seed=1).requires_grad_()
    batch = Batch(INPUTS, [list(range(20 + row, 20 + row + target)) for row in range(len(INPUTS))])
    assert len(grouped([20 + len(text) for text in INPUTS])) == 3
    engine = engine_for(model)
    assert engine.name == "t5"
    found, expected = engine.losses(value[None], batch), naive_losses(model, [value], batch)
    assert_equal_losses(found, expected)
    ours, theirs = (torch.autograd.grad(losses.sum(), value)[0] for losses in (found, expected))
    assert_equal_gradients(ours, theirs)


@pytest.mark.parametrize("family", T5_FAMILIES)
def test_what_hangs_on_a_layer_is_not_passed_by(family: str) -> None:
    model, value, seen = tiny(family), draw(3, WIDTH), []
    model.network.encoder.block[0].register_forward_hook(lambda *_: seen.append("called"))
    engine = engine_for(model)
    assert engine.name == "encoder-decoder"
    assert_equal_losses(engine.losses(value[None], ragged()), naive_losses(model, [value], ragged()))
    assert seen


def test_a_model_that_only_claims_to_be_of_the_family_runs_plainly() -> None:
    """The check at load compares numbers: here a layer's scores are scaled, which T5's are not."""
    model, value = tiny("t5"), draw(3, WIDTH)
    for block in model.network.encoder.block:
        block.layer[0].SelfAttention.scaling = 0.3
    engine = engine_for(model)
    assert engine.name == "encoder-decoder"
    assert_equal_losses(engine.losses(value[None], ragged()), naive_losses(model, [value], ragged()))


def test_an_output_matrix_of_its_own_is_used() -> None:
    """T5 v1.1 and Flan-T5: neither the embeddings nor their scale may enter the logits."""
    network = tiny("t5_v1_1").network
    assert not network.config.scale_decoder_outputs
    assert network.get_output_embeddings().weight is not network.get_input_embeddings().weight


def test_generation_with_two_prompts_of_unlike_lengths() -> None:
    model, batch = tiny("t5gemma"), ragged([0, 1, 1, 0])
    prompts = [draw(5, WIDTH), draw(2, WIDTH, seed=1)]
    found = engine_for(model).generator(prompts)(batch, 5)
    rows = zip(batch.inputs, batch.rows, strict=True)
    assert found == [naive_continuation(model, prompts[row], text, 5) for text, row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_prompt_is_the_bare_model(family: str) -> None:
    model, nothing = tiny(family), torch.zeros(0, WIDTH)
    found = engine_for(model).losses(nothing[None], ragged())
    with_ids = [
        model.network(input_ids=torch.tensor([text]), labels=torch.tensor([target])).loss * len(target)
        for text, target in zip(INPUTS, TARGETS, strict=True)
    ]
    assert_equal_losses(found, torch.stack(with_ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_label_scores_equal_one_loss_at_a_time(family: str) -> None:
    model, value, labels = tiny(family), draw(3, WIDTH), [[30], [31, 32], [33, 34, 35]]
    scores = engine_for(model).scorer(value[None])(ragged(), labels)
    expected = [[-naive_loss(model, value, text, label) for label in labels] for text in INPUTS]
    assert_equal_losses(scores, torch.tensor(expected))


@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_equals_the_likeliest_token_again_and_again(family: str, length: int) -> None:
    model, value = tiny(family), draw(length, WIDTH)
    found = engine_for(model).generator(value[None])(ragged(), 6)
    assert found == [naive_continuation(model, value, text, 6) for text in INPUTS]


def test_generation_ignores_what_a_checkpoint_sets_for_summaries() -> None:
    """bart-large-cnn forces its first token, forbids repetition and demands a least length."""
    network = tiny("bart").network
    network.generation_config = GenerationConfig(
        forced_bos_token_id=2, no_repeat_ngram_size=1, min_length=5, num_beams=4, length_penalty=2.0,
        early_stopping=True, decoder_start_token_id=0,
    )  # fmt: skip
    model, value = FrozenModel("summaries", network, tokenizer()), draw(4, WIDTH)
    found = engine_for(model).generator(value[None])(ragged(), 6)
    assert found == [naive_continuation(model, value, text, 6) for text in INPUTS]


tokens = st.integers(3, VOCABULARY - 1)
row = st.tuples(
    st.lists(tokens, min_size=1, max_size=9), st.lists(tokens, min_size=1, max_size=4), st.integers(0, 1)
)


@pytest.fixture(scope="module")
def t5() -> FrozenModel:
    return tiny("t5")


@settings(deadline=None, max_examples=25)
@given(rows=st.lists(row, min_size=1, max_size=5))
def test_a_row_does_not_depend_on_its_batch(
    t5: FrozenModel, rows: list[tuple[list[int], list[int], int]]
) -> None:
    engine, prompts = engine_for(t5), [draw(5, WIDTH), draw(2, WIDTH, seed=1)]

    def losses(chosen: list[tuple[list[int], list[int], int]]) -> Tensor:
        inputs, targets, own = zip(*chosen, strict=True)
        return engine.losses(prompts, Batch(list(inputs), list(targets), list(own)))

    together = losses(rows)
    assert_equal_losses(together, torch.cat([losses([one]) for one in rows]))
    assert_equal_losses(losses(rows[::-1]), together.flip(0))
