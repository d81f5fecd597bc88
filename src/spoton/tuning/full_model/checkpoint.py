"""What a killed run of model tuning leaves behind and a resumed one reads: weights, optimizer state, history.

A folder: ``state.safetensors`` (optimizer and history) and ``weights-STEP.safetensors`` of the newest and of the best
look. Every file is replaced in one step, and the state, which names the two steps, comes last; so a kill at any moment
leaves a state whose weights are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spoton.errors import RecipeError
from spoton.files import atomic_save
from spoton.tuning.course import Course

Weights = Mapping[str, Tensor]
"""Weights by their name in the network."""

_STATE = "state.safetensors"
_NAME = "spoton-model-checkpoint"


def write_model_checkpoint(
    folder: Path, state: Course, weights: Weights, optimizer: torch.optim.Optimizer, identity: str
) -> None:
    """Writes a run's state at a look so that `read_model_checkpoint` goes on from it exactly.

    The best weights are those of this look, or of an earlier one whose file is kept.

    Args:
        folder: Where; made if it is not there.
        state: Steps and history.
        weights: The weights now.
        optimizer: Of ``weights``, in their order.
        identity: Of the run.
    """
    _save({name: weight.detach() for name, weight in weights.items()}, _weights(folder, state.step), {})
    tensors = {
        f"{place}.{name}": torch.as_tensor(value)
        for place, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
    }
    _save(tensors, folder / _STATE, {_NAME: json.dumps(vars(state) | {"identity": identity})})
    for file in folder.glob("weights-*.safetensors"):
        if file not in (_weights(folder, state.step), _weights(folder, state.best_step)):
            file.unlink()


def read_model_checkpoint(
    folder: Path, weights: Weights, optimizer: torch.optim.Optimizer, identity: str
) -> tuple[Course, dict[str, Tensor]]:
    """Puts weights and optimizer back where they were; returns the state and the best weights.

    Raises:
        RecipeError: A file is damaged, or belongs to a run with another recipe, task or model.
    """
    try:
        with safe_open(folder / _STATE, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
            plain: dict[str, Any] = json.loads(file.metadata()[_NAME])
        if plain.pop("identity") != identity:
            raise RecipeError(
                f"{folder} was left by a run with another recipe, task or model; resuming would mix the two. "
                "Repeat the command it was started with, or leave --resume out to start anew."
            )
        state = Course(**plain)
        now = load_file(_weights(folder, state.step))
        best = load_file(_weights(folder, state.best_step))
        with torch.no_grad():  # the optimizer holds the tensors, so their values are replaced
            for name, weight in weights.items():
                weight.copy_(now[name])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"{folder} is no usable checkpoint ({error}). Remove it and start again."
        ) from error
    held: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place, _, what = name.partition(".")
        held.setdefault(int(place), {})[what] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": held})
    return state, best


def has_model_checkpoint(folder: Path) -> bool:
    """Whether a run left its state there."""
    return (folder / _STATE).is_file()


def remove_model_checkpoint(folder: Path) -> None:
    """Removes what runs left there; the state first, without which the rest means nothing."""
    (folder / _STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _weights(folder: Path, step: int) -> Path:
    return folder / f"weights-{step}.safetensors"


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    data = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_save(path, lambda temporary: save_file(data, temporary, metadata))
