"""Trials of untuned sources on a tiny model: the loss by its formula, rejects, resume, cost, lengths, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spoton.errors import LibraryError, RecipeError
from spoton.evaluation.encoding import encode, needs_end
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt, resize_prompt
from spoton.tasks import Task
from spoton.transfer import trial
from spoton.transfer.ranking import trial as trial_module
from spoton.transfer.ranking.trial import TEXT
from spoton.transfer.sources import Retrieved, SourcePrompt, sources_for
from spoton.tuning import Recipe
from spoton.tuning.row_order import rows_of_step
from tests.models.naive import naive_loss
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=200, batch_size=4, seed=3)
LENGTHS = {"a": 4, "b": 2, "c": 7, "d": 4, "e": 1, "f": 3}


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture
def sources(model: FrozenModel, tmp_path: Path) -> list[SourcePrompt]:
    """Six prompts of different lengths, none with a key."""
    library = PromptLibrary(tmp_path / "library")
    for seed, (name, length) in enumerate(LENGTHS.items()):
        card = Card(name=name, task=f"task-{name}", model=model.name, model_fingerprint=model.fingerprint)
        library.add(SoftPrompt(draw(length, WIDTH, seed=seed, scale=1.0), card))
    return sources_for([library], model.fingerprints, need_key=False)


def label_scores(model: FrozenModel, value: torch.Tensor, task: Task, rows: int) -> torch.Tensor:
    """`[rows, C]` by concatenating the prompt to every row and label, one at a time."""
    assert task.labels is not None
    order = rows_of_step(len(task.train), len(task.train), 0, RECIPE.seed)[:rows]
    examples = [task.train[row] for row in order]
    encoded = encode(
        model, examples, end=needs_end(model, task.labels), prompt_length=8, max_input_tokens=256
    )
    labels = [model.encode_target(label, end=False) for label in task.labels]
    return torch.stack(
        [
            torch.stack([-naive_loss(model, value, text, label).detach() for label in labels])
            for text in encoded.inputs
        ]
    )


def calibrated_loss(scores: torch.Tensor, gold: torch.Tensor) -> float:
    """Cross-entropy at the maximum a posteriori bias and temperature, by many steps of plain gradient descent."""
    scores = scores.double()
    bias = torch.zeros(scores.shape[1], dtype=torch.float64, requires_grad=True)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(4000):
        fit = torch.nn.functional.cross_entropy(scores / log_t.exp() + bias, gold, reduction="sum")
        loss = (fit + (bias.square().sum() + log_t.square()) / 2) / len(scores)
        gradients = torch.autograd.grad(loss, [bias, log_t])
        with torch.no_grad():
            for tensor, gradient in zip((bias, log_t), gradients, strict=True):
                tensor -= 0.5 * gradient
    return float(torch.nn.functional.cross_entropy(scores / log_t.exp() + bias, gold).detach())


def test_the_loss_is_that_of_the_formula_and_lengths_may_differ(
    model: FrozenModel, sources: list[SourcePrompt]
) -> None:
    task = toy_task()
    found = trial(model, task, sources, 9, RECIPE)
    assert {one.name for one in found} == {*LENGTHS, TEXT}
    order = rows_of_step(len(task.train), len(task.train), 0, RECIPE.seed)
    gold = torch.tensor([(task.labels or ()).index(task.train[row].target) for row in order])
    for one, rows in ((found[0], 24), (found[-1], 16)):  # the toy task has 24 training rows in all
        expected = calibrated_loss(label_scores(model, one.prompt.value, task, rows), gold[:rows])
        assert one.loss == pytest.approx(expected, abs=1e-3)
        shares = torch.bincount(gold[:rows]).double() / rows
        entropy = float(-(shares * shares.log()).sum())
        assert one.similarity == pytest.approx(1 - expected / entropy, abs=2e-3)
        assert one.by == "trial" and one.to_json()["loss"] == one.loss


def test_rejected_candidates_are_behind_those_that_went_on(
    model: FrozenModel, sources: list[SourcePrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, int]] = []
    real = trial_module.label_scores_of

    def watched(model: FrozenModel, values: Any, encoded: Any, labels: Any, **more: Any) -> torch.Tensor:
        tried.append((len(values), len(encoded)))
        return real(model, values, encoded, labels, **more)

    monkeypatch.setattr(trial_module, "label_scores_of", watched)
    found = trial(model, toy_task(), sources, 9, RECIPE)
    assert tried == [(7, 16), (4, 8)]  # all on 16 rows, then four on the rest of the 24
    assert len(found) == 7
    for part in (found[:4], found[4:]):
        losses = [one.loss or 0 for one in part]
        assert losses == sorted(losses)
    assert names(trial(model, toy_task(), sources, 2, RECIPE)) == names(found)[:2]


def test_the_own_text_is_a_candidate_and_no_parent(model: FrozenModel, sources: list[SourcePrompt]) -> None:
    (text,) = [one for one in trial(model, toy_task(), sources, 9, RECIPE) if one.name == TEXT]
    assert not text.is_source and text.parents(1.0) == () and text.prompt.length == RECIPE.length
    (source,) = [one for one in trial(model, toy_task(), sources, 9, RECIPE) if one.name == "a"]
    (parent,) = source.parents(0.5)
    assert (parent.name, parent.weight, parent.similarity) == ("a", 0.5, None)


def test_a_source_that_misleads_is_behind_the_text(model: FrozenModel, tmp_path: Path) -> None:
    """Nothing depends on the input behind a prompt of enormous numbers, so it explains nothing."""
    library = PromptLibrary(tmp_path)
    card = Card(name="huge", task="x", model=model.name, model_fingerprint=model.fingerprint)
    library.add(SoftPrompt(draw(4, WIDTH, scale=1e4), card))
    found = trial(model, toy_task(), sources_for([library], model.fingerprints, need_key=False), 2, RECIPE)
    assert [one.name for one in found] == [TEXT, "huge"]
    assert "behind the task's own text" in found.notes[0]


def names(found: list[Retrieved]) -> list[tuple[str, float | None]]:
    return [(one.name, one.loss) for one in found]


def test_a_killed_trial_goes_on_and_ends_the_same(
    model: FrozenModel, sources: list[SourcePrompt], tmp_path: Path
) -> None:
    task = toy_task()
    events: list[Progress] = []
    whole = trial(model, task, sources, 9, RECIPE, on_event=events.append)
    assert events[-1].done == events[-1].total == 7 * 16 + 4 * 8

    def stop(event: Progress) -> None:
        if event.done > 7 * 16:
            raise KeyboardInterrupt

    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        trial(model, task, sources, 9, RECIPE, folder=work, on_event=stop)
    (kept,) = work.iterdir()
    again = trial(model, task, sources, 9, RECIPE, folder=work)
    assert names(again) == names(whole) and again.cost == whole.cost
    kept.write_bytes(kept.read_bytes()[:-3])
    assert names(trial(model, task, sources, 9, RECIPE, folder=work)) == names(whole)
    other = trial(model, task, sources, 9, RECIPE.changed(seed=4), folder=work)
    assert names(other) != names(whole)


def test_what_a_trial_costs_and_its_limit(model: FrozenModel, sources: list[SourcePrompt]) -> None:
    found = trial(model, toy_task(), sources, 1, RECIPE)
    task, length = toy_task(), sum(LENGTHS.values()) + RECIPE.length
    order = rows_of_step(24, 24, 0, RECIPE.seed)
    texts = [len(model.encode_input(task.train[row].input)) for row in order]
    first = 7 * sum(texts[:16]) + length
    second = found.cost.tokens - first
    assert 4 * sum(texts[16:]) + 4 <= second <= 4 * sum(texts[16:]) + length
    step = 2 * (4 * sum(texts) / 24 + 4)
    assert found.cost.steps == -int(-found.cost.tokens // step) and found.cost.passes > 0
    halved = trial(model, toy_task(), sources, 1, RECIPE, limit=found.cost.steps - 4)
    assert halved.cost.steps < found.cost.steps
    with pytest.raises(
        RecipeError, match=r"7 candidates costs as much as \d+ steps, and may cost 1 of the 200"
    ):
        trial(model, toy_task(), sources, 1, RECIPE, limit=1)


def test_sources_are_tried_at_the_length_they_are_used_at(
    model: FrozenModel, sources: list[SourcePrompt]
) -> None:
    found = {one.name: one for one in trial(model, toy_task(), sources, 9, RECIPE, length=4)}
    native = {one.name: one for one in trial(model, toy_task(), sources, 9, RECIPE)}
    assert found["c"].loss != native["c"].loss and found["a"].prompt.length == 4
    assert torch.equal(resize_prompt(found["c"].prompt.value, 7), native["c"].prompt.value)


def test_open_targets_are_ranked_by_the_loss_of_a_target_token(
    model: FrozenModel, sources: list[SourcePrompt]
) -> None:
    task = toy_task(labels=None)
    found = trial(model, task, sources, 9, RECIPE)
    order = rows_of_step(24, 24, 0, RECIPE.seed)
    encoded = encode(
        model, [task.train[row] for row in order], end=True, prompt_length=8, max_input_tokens=256
    )
    best = found[0]
    rows = zip(encoded.inputs, encoded.targets, strict=True)
    losses = [
        float(naive_loss(model, best.prompt.value, text, target)) / len(target) for text, target in rows
    ]
    assert best.loss == pytest.approx(sum(losses) / 24, rel=1e-4)
    (text,) = [one for one in found if one.name == TEXT]
    assert text.similarity == 0.0


def test_too_many_sources_are_refused(
    model: FrozenModel, sources: list[SourcePrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "MOST", 5)
    with pytest.raises(LibraryError, match="at most 5 sources, found 6"):
        trial(model, toy_task(), sources, 1, RECIPE)


@pytest.mark.parametrize("family", ["gpt2", "t5", "falcon_alibi"])
def test_other_engines_give_the_same_as_one_prompt_at_a_time(family: str) -> None:
    from spoton.evaluation.many_prompts import label_scores_of, label_tokens, target_losses_of

    other, task = tiny(family), toy_task()
    values = [draw(length, WIDTH, seed=length) for length in (3, 5)]
    encoded = encode(
        other, task.train[:6], end=needs_end(other, task.labels), prompt_length=5, max_input_tokens=64
    )
    labels = label_tokens(other, task.labels or ())
    together = label_scores_of(other, values, encoded, labels)
    losses = target_losses_of(other, values, encoded)
    for k, value in enumerate(values):
        torch.testing.assert_close(together[k], label_scores_of(other, [value], encoded, labels)[0])
        torch.testing.assert_close(losses[k], target_losses_of(other, [value], encoded)[0])
