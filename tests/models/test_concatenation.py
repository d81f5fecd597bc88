"""The plain engine against the naive formula, and generation against one argmax after the other."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from spoton.models import Batch, FrozenModel, engine_for
from spoton.models.concatenation import ConcatenationEngine
from tests.models.naive import (
    INPUTS,
    assert_equal_gradients,
    assert_equal_losses,
    naive_continuation,
    naive_loss,
    naive_losses,
    ragged,
)
from tests.tiny import WIDTH, draw, tiny, tokenizer

# ALiBi, and rotary Falcon, whose attention is its own rather than one that transformers lets be replaced.
FALLBACK = ("mpt", "bloom", "falcon_alibi", "falcon", "falcon_new")


@pytest.mark.parametrize("family", ["llama", "opt", *FALLBACK])
def test_losses_and_gradients_equal_the_naive_formula(family: str) -> None:
    model = tiny(family)
    prompts = [draw(5, WIDTH).requires_grad_(), draw(2, WIDTH, seed=1).requires_grad_()]
    batch = ragged([0, 1, 1, 0])
    found = ConcatenationEngine(model).losses(prompts, batch)
    expected = naive_losses(model, prompts, batch)
    assert_equal_losses(found, expected)
    ours, theirs = (torch.autograd.grad(losses.sum(), prompts) for losses in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert_equal_gradients(one, other)


@pytest.mark.parametrize("family", ["llama", *FALLBACK])
def test_label_scores_equal_one_loss_at_a_time(family: str) -> None:
    model, value, labels = tiny(family), draw(3, WIDTH), [[30], [31, 32]]
    scores = ConcatenationEngine(model).scorer(value[None])(ragged(), labels)
    expected = [[-naive_loss(model, value, text, label) for label in labels] for text in INPUTS]
    assert_equal_losses(scores, torch.tensor(expected))


@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gemma3", "opt", *FALLBACK])
def test_generation_equals_the_likeliest_token_again_and_again(family: str, length: int) -> None:
    model, value = tiny(family), draw(length, WIDTH)
    found = engine_for(model).generator(value[None])(ragged(), 6)
    assert found == [naive_continuation(model, value, text, 6) for text in INPUTS]


def test_generation_with_two_prompts_of_unlike_lengths() -> None:
    model, prompts = tiny("llama"), [draw(5, WIDTH), draw(2, WIDTH, seed=1)]
    batch = ragged([0, 1, 1, 0])
    found = engine_for(model).generator(prompts)(batch, 5)
    rows = zip(batch.inputs, batch.rows, strict=True)
    assert found == [naive_continuation(model, prompts[row], text, 5) for text, row in rows]


@pytest.mark.parametrize("family", ["rwkv", "mamba"])
def test_recurrent_models_generate_as_alone_next_to_longer_rows(family: str) -> None:
    """RWKV ignores the mask, so padding would be read into its state."""
    model, prompt = tiny(family), draw(4, WIDTH)
    generate = ConcatenationEngine(model).generator([prompt])
    batch = Batch([[5, 6, 7], list(range(5, 25))], [[], []])
    alone = [generate(Batch([text], [[]]), 6)[0] for text in batch.inputs]
    assert generate(batch, 6) == alone and alone[0] == naive_continuation(model, prompt, [5, 6, 7], 6)


def test_generation_stops_at_the_end_token_and_leaves_it_out() -> None:
    model, value = tiny("llama"), draw(4, WIDTH)
    free = engine_for(model).generator(value[None])(ragged(), 6)
    other = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, pad_token="<pad>")
    other.eos_token = other.convert_ids_to_tokens(free[0][2])
    ending = FrozenModel("ending", model.network, other)
    found = engine_for(ending).generator(value[None])(ragged(), 6)
    assert found[0] == free[0][: free[0].index(free[0][2])]
    assert found == [naive_continuation(ending, value, text, 6) for text in INPUTS]


def test_generation_ignores_what_a_checkpoint_sets_for_chats() -> None:
    """Instruction-tuned checkpoints bring sampling and penalties that are no part of greedy decoding."""
    network = tiny("llama").network
    network.generation_config = GenerationConfig(
        do_sample=True, temperature=1.7, top_k=5, repetition_penalty=1.9, no_repeat_ngram_size=1,
        suppress_tokens=[10, 11, 12], min_new_tokens=3,
    )  # fmt: skip
    model, value = FrozenModel("chatty", network, tokenizer()), draw(4, WIDTH)
    found = engine_for(model).generator(value[None])(ragged(), 6)
    assert found == [naive_continuation(model, value, text, 6) for text in INPUTS]
