"""What a killed run leaves behind and a resumed one reads: prompt, optimizer state, best, key, history.

One safetensors file, replaced atomically. The order of examples is not in it, since it follows from seed and step. A
resumed run ends with the very prompt of an uninterrupted one if it has the same number of threads (and processor, and
versions), since these decide in which order floating-point numbers are added.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spoton.errors import RecipeError
from spoton.files import atomic_write
from spoton.tuning.course import Course


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
    data = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    atomic_write(path, save(data, {"spoton-checkpoint": json.dumps(plain)}))


def read_checkpoint(path: Path, optimizer: torch.optim.Optimizer, identity: str) -> State:
    """Reads a run's state and puts the optimizer back where it was.

    Raises:
        RecipeError: The file is damaged, or belongs to a run with another recipe, task, model or type of weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
            plain: dict[str, Any] = json.loads(file.metadata()["spoton-checkpoint"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path} is no usable checkpoint ({error}). Remove it and start again.") from error
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
