"""Evaluation by rank and by generate, with and without label words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from spoton.errors import DataError, PromptError
from spoton.evaluation import evaluate
from spoton.evaluation.score import _as_label
from spoton.events import Progress
from spoton.models import FrozenModel, engine_for
from spoton.prompts import Card, SoftPrompt
from spoton.tasks import Example
from spoton.tasks.metrics import compute
from tests.models.naive import naive_continuation, naive_loss
from tests.tiny import WIDTH, draw, tiny, toy_task


@pytest.fixture(scope="module", params=["llama", "t5"])
def model(request: pytest.FixtureRequest) -> FrozenModel:
    return tiny(request.param)


@pytest.mark.parametrize("labels", [("yes", "no"), ("yes", "maybe not"), ("yes", "yes no")])
def test_rank_takes_the_likeliest_label(model: FrozenModel, labels: tuple[str, ...]) -> None:
    """Label words of one and of several tokens; where one begins the other, both are scored with their end."""
    task, value = toy_task(labels), draw(4, WIDTH)
    found = evaluate(model, value, task.test, task)
    end = labels[1].startswith(labels[0])
    ids = [model.encode_target(label, end=end) for label in labels]
    scores = torch.tensor(
        [
            [-naive_loss(model, value, model.encode_input(row.input), label) for label in ids]
            for row in task.test
        ]
    )
    expected = [labels[int(row.argmax())] for row in scores]
    right = [answer == row.target for answer, row in zip(expected, task.test, strict=True)]
    gold = torch.tensor([labels.index(row.target) for row in task.test])
    assert (found.mode, found.metric, found.n, found.truncated) == ("rank", "accuracy", 8, 0)
    assert found.predictions == expected
    assert found.score == pytest.approx(100 * sum(right) / 8)
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(scores, gold)), abs=1e-5)


def test_no_prompt_is_the_bare_model(model: FrozenModel) -> None:
    task = toy_task()
    found = evaluate(model, None, task.test, task)
    assert found.loss == evaluate(model, torch.zeros(0, WIDTH), task.test, task).loss


def test_generate_reads_the_greedy_text(model: FrozenModel) -> None:
    value = draw(4, WIDTH)
    closed, target = toy_task(), model.encode_target("yes", end=False)
    rows = [model.encode_input(row.input) for row in closed.test]
    said = [model.decode(naive_continuation(model, value, row, len(target))) for row in rows]
    found = evaluate(model, value, closed.test, closed, "generate")
    assert found.mode == "generate" and found.loss is None
    assert found.predictions == [text if text in ("yes", "no") else None for text in said]


def test_inputs_leave_room_for_the_longest_answer_that_may_be_generated() -> None:
    """GPT-2 has a table of 128 positions, and a training target may be longer than all that are scored."""
    model, value = tiny("gpt2"), draw(4, WIDTH)
    long = Example("The film was lovely.\nVerdict:", "yes " * 40)
    task = toy_task(None, train=(*toy_task().train, long))
    some = [Example("warm " * 200 + "\nVerdict:", "yes")]
    found = evaluate(model, value, some, task)
    assert found.truncated == 1 and len(found.predictions) == 1


def test_open_targets_are_generated_up_to_the_longest_training_target(model: FrozenModel) -> None:
    task, value = toy_task(None), draw(4, WIDTH)
    found = evaluate(model, value, task.test, task)
    assert found.mode == "generate" and set(found.scores) == {"exact_match"}
    longest = max(len(model.encode_target(row.target, end=True)) for row in task.train)
    assert found.predictions == [
        model.decode(naive_continuation(model, value, model.encode_input(row.input), longest))
        for row in task.test
    ]
    assert found.scores == compute(
        ("exact_match",), found.predictions, [row.target for row in task.test], None
    )


def test_the_targets_that_are_scored_do_not_decide_how_long_an_answer_may_be(model: FrozenModel) -> None:
    task, value = toy_task(None), draw(4, WIDTH)
    longer = tuple(replace(row, target="no " * 12) for row in task.test)
    assert (
        evaluate(model, value, longer, task).predictions
        == evaluate(model, value, task.test, task).predictions
    )
    short = evaluate(model, value, task.test, task, max_tokens=1).predictions
    assert short == [
        model.decode(naive_continuation(model, value, model.encode_input(row.input), 1)) for row in task.test
    ]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"),
        ("yes no", "yes no"),  # the longest
        ("yes\nVerdict", "yes"),
        ("yes.", "yes"),
        ("yesterday", None),
        ("oh yes", None),
        ("", None),
    ],
)
def test_generated_text_is_a_label_or_begins_with_one_as_words(text: str, label: str | None) -> None:
    assert _as_label(text, ["no", "yes", "yes no"]) == label


def test_truncation_is_counted(model: FrozenModel) -> None:
    task = toy_task()
    long = Example("The film was cold. " * 30 + "\nVerdict:", "no")
    found = evaluate(model, draw(4, WIDTH), [*task.test, long, long], task, max_input_tokens=24)
    assert (found.truncated, found.n) == (2, 10)


def test_a_prompt_with_its_card_belongs_to_one_model_and_brings_its_limit() -> None:
    model, task = tiny("llama"), toy_task()
    facts = {"name": "toy", "task": "toy", "model": model.name, "recipe": {"max_input_tokens": 8}}
    prompt = SoftPrompt(draw(4, WIDTH), Card(**facts, model_fingerprint=model.fingerprint))
    found = evaluate(model, prompt, task.test, task)
    assert found == evaluate(model, prompt.value, task.test, task, max_input_tokens=8)
    assert found.truncated == 8
    assert evaluate(model, prompt, task.test, task, max_input_tokens=64).truncated == 0
    assert evaluate(model, prompt.value, task.test, task).truncated == 0
    foreign = SoftPrompt(prompt.value, Card(**facts, model_fingerprint="f00d"))
    with pytest.raises(PromptError, match="f00d"):
        evaluate(model, foreign, task.test, task)


def test_predictions_do_not_depend_on_what_else_is_evaluated() -> None:
    task, value, model = toy_task(), draw(4, WIDTH), tiny("llama")
    rows = [Example(f"{'The film was dull. ' * (i % 7)}{row.input}", row.target)
            for i, row in enumerate((*task.train, *task.validation, *task.test))]  # fmt: skip
    together = evaluate(model, value, rows, task).predictions
    assert together == [evaluate(model, value, [row], task).predictions[0] for row in rows]
    assert len(rows) > 32  # more than one batch


def test_what_cannot_be_evaluated() -> None:
    model, task = tiny("llama"), toy_task()
    with pytest.raises(DataError, match="toy has no examples"):
        evaluate(model, None, [], task)
    with pytest.raises(DataError, match=r"open targets.*generate"):
        evaluate(model, None, task.test, toy_task(None), "rank")
    with pytest.raises(DataError, match="Example 1 has an empty input"):
        evaluate(model, None, [Example("", "yes")], task)
    endless = toy_task(("yes", "no " * 200), train=task.train[:1], validation=(), test=())
    with pytest.raises(DataError, match="longest target"):
        evaluate(model, None, endless.train, endless)


def test_progress_reaches_the_end() -> None:
    model, task, seen = tiny("llama"), toy_task(), list[Progress]()
    evaluate(model, None, [*task.train, *task.test], task, on_event=seen.append, phase="looking")
    assert seen[-1].done == seen[-1].total == 32 and {event.phase for event in seen} == {"looking"}
    assert [event.done for event in seen] == sorted(event.done for event in seen)


def test_the_engine_stays_the_same_over_evaluations() -> None:
    model, task = tiny("llama"), toy_task()
    engine = engine_for(model)
    evaluate(model, None, task.test, task)
    assert engine_for(model) is engine


def test_an_unknown_mode_is_refused() -> None:
    task = toy_task()
    wrong: Any = "ranked"
    with pytest.raises(DataError, match="'ranked'; there is: rank, generate"):
        evaluate(tiny("llama"), None, task.test, task, wrong)


@pytest.mark.parametrize("matrix", [draw(4, WIDTH + 1), draw(4, WIDTH)[0], "prompt.safetensors"])
def test_what_is_not_a_matrix_of_the_models_width_is_refused(matrix: Any) -> None:
    task = toy_task()
    with pytest.raises(PromptError, match=rf"expected a tensor \[P, {WIDTH}\]"):
        evaluate(tiny("llama"), matrix, task.test, task)
