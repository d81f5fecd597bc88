"""The checkpoint of a prompt tuning run, which a resumed run reads: parameters, optimizer, average, best, key.

One file with a checksum, replaced atomically. It does not hold the order of examples, which follows from seed and step.
A resumed run ends with exactly the prompt of an uninterrupted one if it has the same number of threads (and CPU, and
versions): these decide the order in which floating-point numbers are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from spoton.errors import RecipeError
from spoton.tuning.course import Course
from spoton.tuning.optimizer import restore_state
from spoton.tuning.prompt_learner import PromptLearner
from spoton.tuning.sealed_tensors import read_sealed, write_sealed
from spoton.tuning.training_run import Learner

_OPTIMIZER = "optimizer."
_KEPT = ("average", "best", "key")


class PromptCheckpoint:
    """The checkpoint file of one run.

    Args:
        path: The file.
        identity: Hash of everything that decides the run; a file of another run is refused.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self._identity = path, identity

    def exists(self) -> bool:
        """See `Checkpoint.exists`."""
        return self.path.is_file()

    def write(self, course: Course, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        """Writes a run's state so that `read` resumes it exactly."""
        held = cast(PromptLearner, learner)
        tensors = {f"tuned.{name}": tensor.detach() for name, tensor in held.parameterization.tensors.items()}
        tensors |= {name: getattr(held, name) for name in _KEPT if getattr(held, name) is not None}
        for place, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"{_OPTIMIZER}{place}.{name}": torch.as_tensor(value) for name, value in state.items()
            }
        write_sealed(self.path, tensors, asdict(course) | {"identity": self._identity})

    def read(self, learner: Learner, optimizer: torch.optim.Optimizer) -> Course:
        """Restores learner and optimizer.

        Raises:
            RecipeError: The file is damaged, or belongs to a run with another recipe, task, model or weight type.
        """
        held = cast(PromptLearner, learner)
        try:
            tensors, plain = read_sealed(self.path)
            if plain.pop("identity") != self._identity:
                raise RecipeError(
                    f"{self.path} was left by a run with another recipe, task, model or --dtype; resuming would mix "
                    "the two. Repeat the command it was started with, or remove the file."
                )
            course = Course.of(plain)
            self._check(held, tensors)
            with torch.no_grad():  # the optimizer refers to the tensors, so their values are replaced
                for name, tensor in held.parameterization.tensors.items():
                    tensor.copy_(tensors[f"tuned.{name}"])
            of_optimizer = {
                name.removeprefix(_OPTIMIZER): t for name, t in tensors.items() if name.startswith(_OPTIMIZER)
            }
            restore_state(optimizer, of_optimizer)
            if course.step and not of_optimizer:
                raise ValueError("it holds no state of the optimizer")
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(
                f"{self.path} is not a usable checkpoint ({error}). Remove it and start again."
            ) from error
        held.moved = course.step > 0
        for name in _KEPT:
            if name in tensors:
                setattr(held, name, tensors[name].to(held.model.device))
        return course

    def _check(self, learner: PromptLearner, tensors: Mapping[str, Tensor]) -> None:
        """Refuses tensors of other shapes, which `copy_` would broadcast over the prompt if they happen to fit."""
        expected = {
            f"tuned.{name}": tensor.shape for name, tensor in learner.parameterization.tensors.items()
        }
        expected |= {name: learner.prompt().shape for name in _KEPT if name in tensors}
        for name, shape in expected.items():
            if tensors[name].shape != shape:
                raise ValueError(f"{name} is {list(tensors[name].shape)}, expected {list(shape)}")
