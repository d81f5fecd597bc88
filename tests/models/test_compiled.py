"""Compiled layers: the same numbers, and a clear word where compiling is not possible."""

from __future__ import annotations

import shutil

import pytest
import torch

from spoton.errors import ModelError
from spoton.models import engine_for
from spoton.models.compiled import compile_layers
from tests.models.naive import assert_equal_gradients, assert_equal_losses, naive_losses, ragged
from tests.tiny import WIDTH, draw, tiny

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")


@needs_compiler
@pytest.mark.filterwarnings("default")  # compiling looks at gradients of tensors that have none
@pytest.mark.slow
def test_losses_and_gradient_are_those_of_the_formula() -> None:
    told: list[str] = []
    plain, model = tiny("llama"), tiny("llama")
    compile_layers(model, told.append)
    value = draw(5, WIDTH).requires_grad_()
    found, expected = engine_for(model).losses(value[None], ragged()), naive_losses(plain, [value], ragged())
    assert_equal_losses(found, expected)
    ours, theirs = (torch.autograd.grad(losses.sum(), value)[0] for losses in (found, expected))
    assert_equal_gradients(ours, theirs)
    assert "layers will be compiled" in told[0]


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"g\+\+"):
        compile_layers(tiny("llama"))
