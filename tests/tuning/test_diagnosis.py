"""The doctor on tasks with one thing wrong each, and on the toy task with nothing wrong but its size."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch

from spoton.errors import DataError
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.tasks import Example, Task
from spoton.tuning import Diagnosis, Recipe, diagnose
from tests.tiny import tiny, toy_task

RECIPE = Recipe(length=4, batch_size=4, learning_rate=0.1)
FEW = "8 validation examples"  # of the toy task, about which the doctor is right


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def healthy(model: FrozenModel) -> Diagnosis:
    return diagnose(model, toy_task(validation=toy_task().train * 2), RECIPE)


def labelled(targets: list[str], labels: tuple[str, ...] | None) -> Task:
    """A task whose training targets are these, with enough to validate on."""
    rows = tuple(Example(f"Text {i}\nVerdict:", target) for i, target in enumerate(targets))
    return toy_task(labels, train=rows, validation=rows[:1] * 30, test=())


def finding(found: Diagnosis, words: str) -> str:
    (only,) = [one for one in found.findings if words in one]
    return only


def test_one_batch_of_the_toy_task_is_overfitted(healthy: Diagnosis) -> None:
    own = healthy.rates[1]
    assert own["after"] < 0.5 * own["before"]


def test_three_rates_around_the_recipes_own_start_from_one_prompt(healthy: Diagnosis) -> None:
    assert [rate["learning_rate"] for rate in healthy.rates] == pytest.approx([0.025, 0.1, 0.4])
    assert len({rate["before"] for rate in healthy.rates}) == 1


def test_the_time_of_a_step_is_that_of_the_steps_taken(model: FrozenModel) -> None:
    began = time.perf_counter()
    found = diagnose(model, toy_task(), RECIPE.changed(steps=77))
    assert (
        found.steps == 77 and 0 < 18 * found.step_seconds < time.perf_counter() - began
    )  # half of 36 steps take longer


def test_nothing_is_found_where_nothing_is_amiss(healthy: Diagnosis) -> None:
    assert healthy.findings == []


def test_what_the_model_sees(healthy: Diagnosis) -> None:
    assert healthy.task == "toy" and healthy.splits == {"train": 24, "validation": 48, "test": 8}
    assert healthy.balance == {"yes": 0.5, "no": 0.5}
    assert healthy.label_tokens == {"yes": [" yes"], "no": [" no"]}
    lengths = healthy.input_tokens
    assert lengths.keys() == {"median", "95%", "longest"}
    assert 5 < lengths["median"] <= lengths["95%"] <= lengths["longest"] < 20


def test_the_model_stays_as_it_was_and_twice_is_the_same(model: FrozenModel) -> None:
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    assert diagnose(model, toy_task(), RECIPE) == diagnose(model, toy_task(), RECIPE)
    after = model.network.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_progress_goes_to_the_end_once(model: FrozenModel) -> None:
    seen: list[Progress] = []
    diagnose(model, toy_task(), RECIPE, on_event=seen.append)
    assert [event.done for event in seen] == list(range(1, seen[0].total + 1))
    assert all(event.loss is not None for event in seen)


def test_truncated_inputs_are_counted(model: FrozenModel) -> None:
    long = Example("The film was warm. " * 100 + "Verdict:", "yes")
    found = diagnose(model, toy_task(train=(*toy_task().train, long)), RECIPE.changed(max_input_tokens=40))
    assert found.truncated == 1
    assert found.input_tokens["longest"] > 400  # as it came, not as it was cut
    told = finding(found, "lose their middle")
    assert "1 of 25" in told and "longer than 40 tokens" in told and "--max-input-tokens" in told


def test_where_the_context_is_the_limit_raising_another_one_is_not_advised(model: FrozenModel) -> None:
    long = Example("The film was warm. " * 100 + "Verdict:", "yes")
    told = finding(diagnose(model, toy_task(train=(*toy_task().train, long)), RECIPE), "lose their middle")
    assert "longer than 123 tokens" in told  # 128 positions, a prompt of 4, a label of 1
    assert "--max-input-tokens" not in told and "context" in told


def test_a_lopsided_task_is_judged_by_another_metric(model: FrozenModel) -> None:
    found = diagnose(model, labelled(["yes"] * 9 + ["no"], ("yes", "no")), RECIPE)
    assert found.balance == {"yes": 0.9, "no": 0.1}
    assert "90%" in finding(found, "macro F1") and "'yes'" in finding(found, "macro F1")


def test_a_label_without_examples_is_named(model: FrozenModel) -> None:
    found = diagnose(model, labelled(["yes", "no"] * 5, ("yes", "no", "maybe")), RECIPE)
    assert "'maybe'" in finding(found, "No training row")


def test_the_balance_shows_the_twenty_most_frequent(model: FrozenModel) -> None:
    targets = [f"answer {i}" for i in range(30)] + ["answer 7"]
    found = diagnose(model, labelled(targets, None), RECIPE)
    assert len(found.balance) == 20 and next(iter(found.balance)) == "answer 7"
    assert found.label_tokens == {}  # open targets are no labels


def test_labels_that_begin_alike_are_pointed_out(model: FrozenModel) -> None:
    found = diagnose(model, labelled(["yes yes", "yes no"] * 5, ("yes yes", "yes no")), RECIPE)
    assert found.label_tokens == {"yes yes": [" yes", " yes"], "yes no": [" yes", " no"]}
    assert "' yes'" in finding(found, "same token")


def test_labels_of_many_tokens_are_pointed_out(model: FrozenModel) -> None:
    found = diagnose(model, labelled(["yes", "xqzjkvw"] * 5, ("yes", "xqzjkvw")), RECIPE)
    assert len(found.label_tokens["xqzjkvw"]) > 4
    assert "'xqzjkvw' (" in finding(found, "Labels of several tokens")
    assert "unequal numbers of tokens, 1 to " in finding(found, "long labels start behind")


def test_means_over_tokens_do_not_put_long_labels_behind(model: FrozenModel) -> None:
    task = labelled(["yes", "xqzjkvw"] * 5, ("yes", "xqzjkvw"))
    found = diagnose(model, task, RECIPE.changed(label_score="mean"))
    assert not any("long labels start behind" in text for text in found.findings)


def test_few_or_no_validation_examples(model: FrozenModel) -> None:
    assert FEW in finding(diagnose(model, toy_task(), RECIPE), "by chance")
    assert finding(diagnose(model, toy_task(validation=()), RECIPE), "no validation split")


def test_a_much_better_rate_is_suggested(model: FrozenModel) -> None:
    one = toy_task(train=toy_task().train[:1])  # nothing to tell apart, so only the rate is in the way
    told = finding(diagnose(model, one, RECIPE.changed(learning_rate=0.0016, length=64)), "try the former")
    assert "learning rate 0.0064 reaches" in told and "yours (0.0016)" in told


def test_a_rate_at_which_nothing_moves_is_said(model: FrozenModel) -> None:
    found = diagnose(model, toy_task(), RECIPE.changed(learning_rate=1e-7))
    assert "spoton tasks show" in finding(found, "No learning rate tried lowers the loss")


def test_a_loss_that_is_no_number_is_said_and_is_null_in_json() -> None:
    broken = tiny("llama")
    broken.network.get_input_embeddings().weight.data[5:].fill_(float("inf"))
    found = diagnose(broken, toy_task(), RECIPE)
    assert math.isnan(found.rates[0]["after"])
    assert "--dtype float32" in finding(found, "not a number")
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["rates"][0] == {"learning_rate": 0.025, "before": None, "after": None}


def test_a_batch_larger_than_the_task_is_the_task(model: FrozenModel) -> None:
    found = diagnose(model, toy_task(train=toy_task().train[:2]), RECIPE.changed(batch_size=100))
    assert found.rates[1]["after"] < found.rates[1]["before"]


def test_a_label_that_does_not_fit_the_context_is_an_error(model: FrozenModel) -> None:
    with pytest.raises(DataError, match=r"longest target.*Shorten"):
        diagnose(model, labelled(["yes", "no"] * 5, ("yes", "no", "no " * 200)), RECIPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "labels"},
        {"clip": 1e-3},
        {"reparameterization": "residual"},
        {"reparameterization": "superposition"},
    ],
)
def test_a_batch_is_fitted_as_the_recipe_says(
    model: FrozenModel, healthy: Diagnosis, changes: dict[str, object]
) -> None:
    task = toy_task(validation=toy_task().train * 2)
    found = diagnose(model, task, RECIPE.changed(optimizer="adafactor", **changes))
    plain = diagnose(model, task, RECIPE.changed(optimizer="adafactor"))
    assert [rate["learning_rate"] for rate in found.rates] == [rate["learning_rate"] for rate in plain.rates]
    assert [rate["after"] for rate in found.rates] != [rate["after"] for rate in plain.rates]


def test_a_loss_over_labels_needs_labels(model: FrozenModel) -> None:
    with pytest.raises(DataError, match="open targets, so there is no loss over its labels"):
        diagnose(model, toy_task(None), RECIPE.changed(loss="labels"))
