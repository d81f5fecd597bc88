"""Compiling the layers of a model for long runs: torch.compile fuses norms, gates and residual sums.

Llama and similar models, whose layers otherwise run by hand (`llama_layers.py`), gain almost nothing: here
transformers' own layers are compiled and run.

The layers are compiled one by one, with lengths left open, so one compilation serves every layer and batch. The
packed attention is not compiled: it consists of matrix products already.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch
from transformers import AttentionInterface

from spoton.errors import ModelError
from spoton.models.frozen import FrozenModel
from spoton.models.llama_layers import LLAMA_FAMILIES
from spoton.models.packed_attention import ATTENTION_NAME, attention


def compile_layers(model: FrozenModel, on_message: Callable[[str], None] | None = None) -> None:
    """Compiles the layers of `model` in place; the first steps then take up to a minute or two.

    Args:
        model: The frozen model.
        on_message: Called with a message about the delay.

    Raises:
        ModelError: There is no C++ compiler, or the model does not list its layers.
    """
    if model.device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ModelError(
            "Compiling needs a C++ compiler (g++ or clang++), and none is installed. Leave --compile out."
        )
    names = set(model.network._no_split_modules or ())
    layers = [module for module in model.network.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(
            f"{model.network.config.model_type} does not say what its layers are, so they cannot be compiled. "
            "Leave --compile out."
        )
    plain = torch.compiler.disable(attention)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    AttentionInterface.register(ATTENTION_NAME, plain)
    for layer in layers:
        layer.compile(dynamic=True)
    if on_message is not None:
        gain = (
            "models of this family are as fast without (docs/performance.md)"
            if model.network.config.model_type in LLAMA_FAMILIES
            else "whether they are faster then depends on the model: compare a short run without"
        )
        on_message(
            f"{len(layers)} layers will be compiled: the first steps take up to a minute or two, and {gain}"
        )
