"""What a killed run leaves behind and a resumed one reads: prompt, optimizer state, best, key, history.

One file with a checksum, replaced atomically. The order of examples is not in it, since it follows from seed and step.
A resumed run ends with the very prompt of an uninterrupted one if it has the same number of threads (and processor, and
versions), since these decide in which order floating-point numbers are added.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import RecipeError
from spoton.tuning.course import Course
from spoton.tuning.sealed_tensors import read_sealed, write_sealed


@dataclass(kw_only=True)
class State(Course):
    """A run at the end of some step.

    Attributes:
        prompt: ``[P, D]`` the prompt being tuned.
        best: ``[P, D]`` the best prompt by validation so far, if there was a look.
        key: ``[P, D]`` the prompt at the key step, once reached.
    """

    prompt: Tensor
    best: Tensor | None = None
    key: Tensor | None = None


def write_checkpoint(path: Path, state: State, optimizer: torch.optim.Optimizer, identity: str) -> None:
    """Writes a run's state so that `read_checkpoint` goes on from it exactly."""
    tensors = {"prompt": state.prompt.detach(), "best": state.best, "key": state.key}
    held = optimizer.state_dict()["state"].get(0, {})
    tensors |= {f"optimizer.{name}": torch.as_tensor(value) for name, value in held.items()}
    plain = {field.name: getattr(state, field.name) for field in fields(Course)} | {"identity": identity}
    write_sealed(path, {name: tensor for name, tensor in tensors.items() if tensor is not None}, plain)


def read_checkpoint(path: Path, optimizer: torch.optim.Optimizer, identity: str) -> State:
    """Reads a run's state and puts the optimizer back where it was.

    Raises:
        RecipeError: The file is damaged, or belongs to a run with another recipe, task, model or type of weights.
    """
    try:
        tensors, plain = read_sealed(path)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{path} is not a usable checkpoint ({error}). Remove it and start again."
        ) from error
    if plain.pop("identity") != identity:
        raise RecipeError(
            f"{path} was left by a run with another recipe, task, model or --dtype; resuming would mix the two. "
            "Repeat the command it was started with, or remove the file."
        )
    held = {
        name.removeprefix("optimizer."): tensors.pop(name)
        for name in list(tensors)
        if name.startswith("optimizer.")
    }
    if held:
        optimizer.load_state_dict(optimizer.state_dict() | {"state": {0: held}})
    return State(**plain, prompt=tensors["prompt"], best=tensors.get("best"), key=tensors.get("key"))
