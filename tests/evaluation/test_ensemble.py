"""Ensembles on tiny models: predictions and evaluations equal the formula over single prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spoton.evaluation import evaluate, predict
from spoton.evaluation.ensemble import voted
from spoton.evaluation.score import ranked
from spoton.models import FrozenModel
from spoton.prompts import Card, SoftPrompt, ensemble_of
from spoton.prompts.card import Calibration
from tests.tiny import WIDTH, draw, tiny, toy_task

TASK = toy_task()
TEXTS = [example.input for example in TASK.test]


def members(
    model: FrozenModel, labels: tuple[str, ...] | None = TASK.labels, score: str = "sum"
) -> list[SoftPrompt]:
    """Three prompts of different lengths, of which two are calibrated."""
    found = []
    for seed, (length, calibration) in enumerate(
        [
            (3, Calibration(bias=[0.7, -0.7], temperature=0.5, rows=8)),
            (5, None),
            (2, Calibration(bias=[-0.2, 0.2], temperature=3.0, rows=8)),
        ]
    ):
        card = Card(
            name=f"p{seed}", task="toy", model=model.name, model_fingerprint=model.fingerprint,
            labels=None if labels is None else list(labels), template="{{ text }}", recipe={"label_score": score},
            calibration=None if labels is None else calibration,
        )  # fmt: skip
        found.append(SoftPrompt(draw(length, WIDTH, seed=seed, scale=1.0), card))
    return found


def probabilities(model: FrozenModel, prompts: list[SoftPrompt], calibrate: bool = True) -> torch.Tensor:
    """`[N, C]` by the formula, from each prompt alone: the geometric mean of probabilities, made to sum to 1."""
    alone = torch.stack(
        [
            torch.tensor(
                [
                    list((one.probabilities or {}).values())
                    for one in predict(model, prompt, TEXTS, calibrate=calibrate)
                ]
            )
            for prompt in prompts
        ]
    )
    product = alone.double().prod(dim=0) ** (1 / len(prompts))
    return product / product.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("family", "score"), [("llama", "sum"), ("llama", "mean"), ("t5", "sum")])
@pytest.mark.parametrize("calibrate", [True, False])
def test_predictions_average_log_probabilities(family: str, score: str, calibrate: bool) -> None:
    model = tiny(family)
    prompts = members(model, score=score)
    joint = predict(model, ensemble_of(prompts), TEXTS, calibrate=calibrate)
    found = torch.tensor([list((one.probabilities or {}).values()) for one in joint])
    torch.testing.assert_close(found.double(), probabilities(model, prompts, calibrate), rtol=1e-4, atol=1e-5)


def test_an_evaluation_judges_the_same_answers() -> None:
    model = tiny("llama")
    prompts = members(model)
    joint = ensemble_of(prompts)
    found = evaluate(model, joint, TASK.test, TASK)
    expected = probabilities(model, prompts)
    labels = TASK.labels or ()
    assert found.predictions == [labels[int(row.argmax())] for row in expected]
    gold = torch.tensor([labels.index(example.target) for example in TASK.test])
    assert found.loss == pytest.approx(float(-expected.log()[range(len(gold)), gold].mean()), rel=1e-4)
    raw = evaluate(model, joint, TASK.test, TASK, calibrate=False)
    assert found.uncalibrated is not None and raw.uncalibrated is None
    assert found.uncalibrated.loss == pytest.approx(raw.loss) != pytest.approx(found.loss)


def test_an_ensemble_of_equal_prompts_is_that_prompt() -> None:
    model = tiny("llama")
    prompt = members(model)[0]
    joint = ensemble_of([prompt, replace(prompt)])
    alone, together = predict(model, prompt, TEXTS), predict(model, joint, TEXTS)
    for one, other in zip(alone, together, strict=True):
        assert one.answer == other.answer and other.probabilities == pytest.approx(
            one.probabilities, rel=1e-4
        )


def test_labels_are_voted_on_rather_than_the_texts_they_are_read_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert voted([["yes", None], [None, None], [None, "no"]]) == ["yes", "no"]
    model, task = tiny("llama"), toy_task()
    said = iter([["no"] * 8, ["yes"] * 8, ["yes, of course"] * 8])  # three texts, two of which are one label
    monkeypatch.setattr("spoton.evaluation.score.generate_texts", lambda *given: next(said))
    found = evaluate(model, ensemble_of(members(model)), task.test, task, "generate")
    assert found.predictions == ["yes"] * 8


def test_texts_are_voted_on() -> None:
    assert voted([["a", "x"], ["b", "y"], ["b", "z"]]) == ["b", "x"]
    model, task = tiny("llama"), toy_task(labels=None)
    prompts = members(model, labels=None)
    alone = [[str(one.answer) for one in predict(model, prompt, TEXTS, max_tokens=3)] for prompt in prompts]
    joint = [one.answer for one in predict(model, ensemble_of(prompts), TEXTS, max_tokens=3)]
    assert joint == voted(alone)
    found = evaluate(model, ensemble_of(prompts), task.test, task, max_tokens=3)
    assert found.predictions == joint


def test_a_given_calibration_replaces_those_of_the_prompts() -> None:
    model = tiny("llama")
    joint = ensemble_of(members(model))
    given = Calibration(bias=[5.0, 0.0], temperature=2.0, rows=8)
    raw = evaluate(model, joint, TASK.test, TASK, calibrate=False)
    found = evaluate(model, joint, TASK.test, TASK, calibration=given)
    assert raw.label_scores is not None and found.uncalibrated is not None
    assert found.loss != pytest.approx(raw.loss)
    again = ranked(TASK, TASK.test, raw.label_scores, given)
    assert (found.predictions, found.loss) == (again.predictions, pytest.approx(again.loss))
    assert found.uncalibrated.loss == pytest.approx(raw.loss)


def test_calibrations_follow_their_labels_to_another_order() -> None:
    model = tiny("llama")
    prompts = members(model)
    turned = replace(TASK, labels=tuple(reversed(TASK.labels or ())))
    for prompt in (prompts[0], ensemble_of(prompts)):
        found, there = (evaluate(model, prompt, TASK.test, task) for task in (TASK, turned))
        assert found.uncalibrated is not None and there.uncalibrated is not None
        assert there.predictions == found.predictions and there.loss == pytest.approx(found.loss)
        assert there.uncalibrated.loss == pytest.approx(found.uncalibrated.loss)
