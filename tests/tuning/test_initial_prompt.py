"""Where a prompt starts, and that a text put into a prompt is to the model what the text itself is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.errors import PromptError, RecipeError
from spoton.prompts import Card, SoftPrompt
from spoton.tuning import Recipe
from spoton.tuning.initial_prompt import starting_prompt
from tests.models.naive import INPUTS, TARGETS, assert_equal_losses, naive_loss
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=6, steps=1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_text_as_prompt_equals_the_text_before_the_input(family: str) -> None:
    """Also in models that scale embeddings on the way in (Gemma)."""
    model, text = tiny(family), "The film was"
    ids = model.encode_target(text, end=False)
    value, parents = starting_prompt(model, toy_task(), RECIPE.changed(init=f"text:{text}", length=len(ids)))
    assert parents == []
    nothing = torch.zeros(0, WIDTH)
    for row, target in zip(INPUTS, TARGETS, strict=True):
        as_tokens = naive_loss(model, nothing, [*ids, *row], target)
        assert_equal_losses(naive_loss(model, value, row, target), as_tokens)


@pytest.mark.parametrize("init", ["vocabulary", "labels", "uniform", "text:The film"])
def test_every_strategy_gives_a_prompt_and_the_seed_decides(init: str) -> None:
    model, task, recipe = tiny("llama"), toy_task(), RECIPE.changed(init=init)
    value, parents = starting_prompt(model, task, recipe)
    assert value.shape == (6, WIDTH) and value.dtype == torch.float32 and parents == []
    assert torch.equal(value, starting_prompt(model, task, recipe)[0])
    other = starting_prompt(model, task, recipe.changed(seed=1))[0]
    assert torch.equal(value, other) == init.startswith("text:")


def test_labels_stand_in_the_prompt() -> None:
    model = tiny("llama")
    value, _ = starting_prompt(model, toy_task(), RECIPE.changed(init="labels"))
    vectors = model.token_vectors()
    for row, label in enumerate(("yes", "no")):
        (token,) = model.encode_target(label, end=False)
        assert torch.equal(value[row], vectors[token])


def test_labels_of_an_open_task_are_sampled_vocabulary() -> None:
    model = tiny("llama")
    values = [
        starting_prompt(model, toy_task(None), RECIPE.changed(init=i))[0] for i in ("labels", "vocabulary")
    ]
    assert torch.equal(*values)


def test_a_prompt_file_is_resized_and_named_as_parent(tmp_path: Path) -> None:
    model = tiny("llama")
    card = Card(name="source", task="toy", model=model.name, model_fingerprint=model.fingerprint)
    source = SoftPrompt(draw(4, WIDTH), card)
    init = str(source.save(tmp_path / "source.safetensors"))
    value, (parent,) = starting_prompt(model, toy_task(), RECIPE.changed(init=init))
    assert torch.equal(value[:4], source.value) and len(value) == 6
    assert (parent.name, parent.hash) == ("source", source.content_hash())
    with pytest.raises(PromptError, match="tiny-gpt2"):
        starting_prompt(tiny("gpt2"), toy_task(), RECIPE.changed(init=init))


def test_an_init_that_is_nothing_says_what_there_is() -> None:
    with pytest.raises(RecipeError, match=r"'vocabluary'.*vocabulary, labels, task, uniform.*no such file"):
        starting_prompt(tiny("llama"), toy_task(), RECIPE.changed(init="vocabluary"))


def test_a_text_without_its_prefix_is_refused_however_long() -> None:
    text = "Say whether the review is good or bad. " * 10
    with pytest.raises(RecipeError, match=r"expected .* text:"):
        starting_prompt(tiny("llama"), toy_task(), RECIPE.changed(init=text))
