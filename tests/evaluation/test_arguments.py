"""Mix-ups of a notebook: each public function refuses them before it runs, with the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spoton
from spoton.errors import DataError, LibraryError, ModelError, PromptError, RecipeError, SpotonError
from spoton.evaluation.arguments import require_counts
from spoton.models import FrozenModel
from tests.tiny import WIDTH, tiny, toy_task

RECIPE = spoton.Recipe(length=4, steps=2, key_step=1, evaluate_every=1, batch_size=4)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


def prompt_of(model: FrozenModel) -> spoton.SoftPrompt:
    card = spoton.Card(name="toy", task="toy", model=model.name, model_fingerprint=model.fingerprint)
    return spoton.SoftPrompt(torch.zeros(4, WIDTH), card)


Call = Callable[[Any], object]
MIX_UPS: list[tuple[type[SpotonError], str, Call]] = [
    (ModelError, "load_model", lambda m: spoton.tune("smollm2-135m", toy_task(), RECIPE)),
    (DataError, "resolve_task", lambda m: spoton.tune(m, "reviews.csv", RECIPE)),
    (RecipeError, "PRESETS", lambda m: spoton.tune(m, toy_task(), "decoder")),
    (RecipeError, "of type dict", lambda m: spoton.tune(m, toy_task(), {"steps": 2})),
    (RecipeError, "PRESETS", lambda m: spoton.diagnose(m, toy_task(), "decoder")),
    (DataError, "resolve_task", lambda m: spoton.diagnose(m, "reviews.csv")),
    (DataError, "resolve_task", lambda m: spoton.adapt(m, "reviews.csv", [])),
    (RecipeError, "PRESETS", lambda m: spoton.adapt(m, toy_task(), [], "decoder")),
    (RecipeError, "seeds = '2'", lambda m: spoton.adapt(m, toy_task(), [], seeds="2")),
    (RecipeError, "k = 1.5", lambda m: spoton.adapt(m, toy_task(), [], k=1.5)),
    (LibraryError, "a list of libraries", lambda m: spoton.adapt(m, toy_task(), "starter")),
    (LibraryError, "a list of libraries", lambda m: spoton.adapt(m, toy_task(), ["lib"])),
    (LibraryError, "PromptLibrary", lambda m: spoton.adapt(m, toy_task(), spoton.PromptLibrary("x"))),
    (DataError, "task.test", lambda m: spoton.evaluate(m, None, "test", toy_task())),
    (DataError, "spoton.predict", lambda m: spoton.evaluate(m, None, ["a"], toy_task())),
    (DataError, "resolve_task", lambda m: spoton.evaluate(m, None, toy_task(), toy_task().test)),
    (DataError, "sum, mean", lambda m: spoton.evaluate(m, None, toy_task().test, toy_task(), label_score="avg")),
    (DataError, "max_tokens is 0", lambda m: spoton.evaluate(m, None, toy_task().test, toy_task(), max_tokens=0)),
    (ModelError, "load_model", lambda m: spoton.predict("smollm2-135m", prompt_of(m), ["a"])),
    (PromptError, "SoftPrompt.load", lambda m: spoton.predict(m, "reviews.safetensors", ["a"])),
    (PromptError, "of type Tensor", lambda m: spoton.predict(m, torch.zeros(4, WIDTH), ["a"])),
    (DataError, "max_tokens is 0", lambda m: spoton.predict(m, prompt_of(m), ["a"], max_tokens=0)),
    (PromptError, "k is 0", lambda m: spoton.retrieve(torch.ones(4, WIDTH), [], k=0)),
    (PromptError, "of a SoftPrompt", lambda m: spoton.similarity(prompt_of(m), prompt_of(m))),
    (DataError, "to_csv", lambda m: spoton.resolve_task([{"text": "a", "label": "b"}])),
    (DataError, "t5, natural", lambda m: spoton.load_task("news_sentiment", form="chat")),
    (ModelError, "The model is None", lambda m: spoton.load_model(None)),
    (PromptError, "as_tensor", lambda m: spoton.SoftPrompt(np.zeros((4, WIDTH)), prompt_of(m).card)),
    (PromptError, "spoton.Card", lambda m: spoton.SoftPrompt(torch.zeros(4, WIDTH), {"name": "x"})),
    (DataError, "2.5", lambda m: toy_task().limited(train=2.5)),
    (DataError, "'2'", lambda m: toy_task().k_shot("2")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "call"), MIX_UPS)
def test_a_mix_up_is_refused_with_the_next_step(
    model: FrozenModel, error: type[SpotonError], words: str, call: Call
) -> None:
    with pytest.raises(error) as raised:
        call(model)
    assert words in str(raised.value)


def test_a_library_takes_prompts_only(model: FrozenModel, tmp_path: Path) -> None:
    library = spoton.PromptLibrary(tmp_path)
    with pytest.raises(LibraryError, match=r"SoftPrompt.load"):
        library.add("reviews.safetensors")
    library.add(prompt_of(model))
    with pytest.raises(LibraryError, match="replace=True"):
        library.add(prompt_of(model))


def test_counts_may_be_of_numpy_and_none() -> None:
    require_counts(a=None, b=np.int64(2))
    with pytest.raises(DataError, match=r"b is 0"):
        require_counts(a=1, b=0)


def test_what_a_notebook_shows_of_a_result_fits_a_few_lines(model: FrozenModel) -> None:
    task = toy_task()
    tuned = spoton.tune(model, task, RECIPE, checkpoint=None)
    for value in (task, tuned, tuned.prompt):
        assert len(repr(value)) < 500, repr(value)
    assert "train=" in repr(task) and "length=4" in repr(tuned.prompt)


def test_a_task_that_no_card_could_hold_is_refused_before_it_is_tuned() -> None:
    with pytest.raises(DataError, match=r"template of task 'toy' is None"):
        toy_task(template=None)
    with pytest.raises(DataError, match="Give it one"):
        toy_task(name="")
    with pytest.raises(DataError, match=r"spoton.Example"):
        toy_task(train=(("text", "yes"),))
    with pytest.raises(DataError, match=r"is 3; expected spoton.Example"):
        toy_task(train=(spoton.Example("text", 3),), labels=None)


def test_ranking_open_targets_is_refused_before_anything_runs(model: FrozenModel) -> None:
    task, events = toy_task(labels=None), list[object]()
    with pytest.raises(DataError, match=r"open targets, so there are no labels to rank"):
        spoton.tune(model, task, RECIPE, mode="rank", on_event=events.append)
    with pytest.raises(DataError, match=r"open targets, so there are no labels to rank"):
        spoton.adapt(model, task, [], RECIPE, evaluation="rank", on_event=events.append)
    assert not events
