"""What a killed run of model tuning leaves behind and a resumed one reads: weights, optimizer state, history.

A folder: ``state.safetensors`` (optimizer and history) and ``weights-STEP.safetensors`` of the newest and of the best
look. Every file is replaced in one step, and the state, which names the two steps and the hashes of their files, comes
last; so a kill at any moment leaves a state whose weights are there, and no damage goes unnoticed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spoton.errors import RecipeError
from spoton.files import atomic_save, sha256_of_file
from spoton.tuning.course import Course
from spoton.tuning.sealed_tensors import read_hashed, read_sealed, write_sealed

Weights = Mapping[str, Tensor]
"""Weights by their name in the network."""

_STATE = "state.safetensors"
_HASHES = "sha256"


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
    now, best = _weights(folder, state.step), _weights(folder, state.best_step)
    known = _known_hashes(folder)
    _save({name: weight.detach() for name, weight in weights.items()}, now)
    hashes = {now.name: sha256_of_file(now)}
    if best != now:
        hashes[best.name] = known.get(best.name) or sha256_of_file(best)
    tensors = {
        f"{place}.{name}": torch.as_tensor(value)
        for place, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
    }
    write_sealed(folder / _STATE, tensors, vars(state) | {"identity": identity, _HASHES: hashes})
    for file in folder.glob("weights-*.safetensors"):
        if file not in (now, best):
            file.unlink()


def read_model_checkpoint(
    folder: Path, weights: Weights, optimizer: torch.optim.Optimizer, identity: str
) -> tuple[Course, dict[str, Tensor]]:
    """Puts weights and optimizer back where they were; returns the state and the best weights.

    Raises:
        RecipeError: A file is damaged, or belongs to a run with another recipe, task or model.
    """
    try:
        tensors, plain = read_sealed(folder / _STATE)
        if plain.pop("identity") != identity:
            raise RecipeError(
                f"{folder} was left by a run with another recipe, task or model; resuming would mix the two. "
                "Repeat the command it was started with, or leave --resume out to start anew."
            )
        hashes: dict[str, str] = plain.pop(_HASHES)
        state = Course(**plain)
        now, best = (
            read_hashed(file, hashes[file.name])
            for file in (_weights(folder, state.step), _weights(folder, state.best_step))
        )
        with torch.no_grad():  # the optimizer holds the tensors, so their values are replaced
            for name, weight in weights.items():
                weight.copy_(now[name])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"{folder} is not a usable checkpoint ({error}). Remove it and start again."
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


def _known_hashes(folder: Path) -> dict[str, str]:
    """Hashes that the state of the last look names; to hash an older file anew would take damage for content."""
    try:
        hashes: dict[str, str] = read_sealed(folder / _STATE)[1][_HASHES]
    except (OSError, ValueError, KeyError):
        return {}
    return hashes


def _weights(folder: Path, step: int) -> Path:
    return folder / f"weights-{step}.safetensors"


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    data = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_save(path, lambda temporary: save_file(data, temporary))
