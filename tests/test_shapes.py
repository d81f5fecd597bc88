"""Shapes in annotations are checked in every test, and cost nothing outside tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError

from spoton.evaluation.calibration import calibrated, expected_calibration_error, fit_calibration
from spoton.evaluation.encoding import encode
from spoton.evaluation.ensemble import pooled
from spoton.evaluation.score import label_log_likelihoods
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.target_loss import target_losses
from spoton.prompts.initial import from_prompt, from_uniform
from spoton.prompts.soft_prompt import resize_prompt
from spoton.tasks import Example
from spoton.transfer.combining.learned_mix import Mix
from spoton.transfer.combining.multiplicative import factorise
from spoton.transfer.combining.task_vectors import task_vectors
from spoton.transfer.ranking.similarity import most_similar
from tests.tiny import tiny

WRONG: dict[str, Callable[[], object]] = {
    "a stack for a matrix": lambda: resize_prompt(torch.zeros(1, 3, 4), 2),
    "whole numbers": lambda: from_prompt(torch.zeros(3, 4, dtype=torch.long), 2),
    "a matrix for a stack": lambda: factorise(torch.zeros(3, 4)),
    "a stack for a key": lambda: most_similar(torch.zeros(1, 3, 4), [], 1),
    "a row for a start": lambda: task_vectors([], torch.zeros(4)),
    "more weights than sources": lambda: Mix(torch.zeros(2, 3, 4), torch.zeros(3)),
    "scores without rows": lambda: calibrated(torch.zeros(3), None),
    "fewer answers than rows": lambda: fit_calibration(torch.zeros(5, 3), torch.zeros(4, dtype=torch.long)),
    "answers as floats": lambda: expected_calibration_error(torch.zeros(5, 3), torch.zeros(5)),
    "scores of one prompt": lambda: pooled(torch.zeros(5, 3), [None]),
    "more targets than places": lambda: target_losses(
        torch.zeros(4, 8), torch.zeros(5, dtype=torch.long), torch.nn.Linear(8, 16), 16
    ),
    # Of several prompts one is checked, drawn at random: the wrong one must be the only one.
    "a stack for one of the prompts": lambda: engine_for(tiny("llama")).losses(
        [torch.zeros(2, 48, 1)], Batch([[1]], [[2]])
    ),
    "a stack of stacks": lambda: engine_for(tiny("t5")).scorer(torch.zeros(1, 1, 2, 64)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_shape_fails(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()


def test_a_wrong_result_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "spoton.prompts.initial.torch.rand", lambda rows, dim, **_: torch.zeros(rows + 1, dim)
    )
    with pytest.raises(TypeCheckError, match="return value"):
        from_uniform(3, 4, seed=0)


def test_what_a_label_is_worth_has_a_shape() -> None:
    model = tiny("llama")
    encoded = encode(model, [Example("The film", "")], end=False, prompt_length=2, max_input_tokens=64)
    with pytest.raises(TypeCheckError, match=r"Expected type: .*P D"):
        label_log_likelihoods(model, torch.zeros(1, 2, model.dim), encoded, ["good"])


def test_outside_tests_nothing_is_imported_for_them() -> None:
    code = (
        "import sys, spoton.models.engine, spoton.evaluation.score, spoton.shapes, typing;"
        "print({'jaxtyping', 'beartype'} & set(sys.modules), spoton.shapes.Float is typing.Annotated)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True"]
