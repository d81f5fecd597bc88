"""What a killed run of model tuning leaves behind and a resumed one reads: weights, optimizer state, history.

A folder: ``state.safetensors`` (optimizer and history) and ``weights-STEP.safetensors`` of the newest and of the best
evaluation. Every file is replaced in one step, and the state, which names the two steps, comes last; so a kill at any
moment leaves a state whose weights are there.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spoton.errors import RecipeError
from spoton.files import atomic_save
from spoton.tuning.course import Course

if TYPE_CHECKING:
    from spoton.tuning.full_model.weights import WeightsLearner
    from spoton.tuning.training_run import Learner

_STATE = "state.safetensors"
_NAME = "spoton-model-checkpoint"


class ModelCheckpoint:
    """The folder of one run.

    Args:
        folder: Where; made if it does not exist.
        identity: Hash of all that decides the run; a state of another run is refused.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self._identity = folder, identity

    def exists(self) -> bool:
        """See `Checkpoint.exists`."""
        return (self.folder / _STATE).is_file()

    def write(self, course: Course, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        """Writes a run's state at an evaluation so that `read` resumes it exactly.

        The best weights are those of this evaluation, or of an earlier one whose file is kept.
        """
        weights = cast("WeightsLearner", learner).weights
        _save({name: weight.detach() for name, weight in weights.items()}, self._weights(course.step), {})
        tensors = {
            f"{place}.{name}": torch.as_tensor(value)
            for place, held in optimizer.state_dict()["state"].items()
            for name, value in held.items()
        }
        plain = asdict(course) | {"identity": self._identity}
        _save(tensors, self.folder / _STATE, {_NAME: json.dumps(plain)})
        for file in self.folder.glob("weights-*.safetensors"):
            if file not in (self._weights(course.step), self._weights(course.best_step)):
                file.unlink()

    def read(self, learner: Learner, optimizer: torch.optim.Optimizer) -> Course:
        """Puts weights, best weights and optimizer back where they were.

        Raises:
            RecipeError: A file is damaged, or belongs to a run with another recipe, task or model.
        """
        held = cast("WeightsLearner", learner)
        try:
            with safe_open(self.folder / _STATE, framework="pt") as file:
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
                plain: dict[str, Any] = json.loads(file.metadata()[_NAME])
            if plain.pop("identity") != self._identity:
                raise RecipeError(
                    f"{self.folder} was left by a run with another recipe, task or model; resuming would mix the two. "
                    "Repeat the command it was started with, or leave --resume out to start anew."
                )
            course = Course(**plain)
            now = load_file(self._weights(course.step))
            held.best = load_file(self._weights(course.best_step))
            with torch.no_grad():  # the optimizer holds the tensors, so their values are replaced
                for name, weight in held.weights.items():
                    weight.copy_(now[name])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(
                f"{self.folder} is not a usable checkpoint ({error}). Remove it and start again."
            ) from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            place, _, what = name.partition(".")
            state.setdefault(int(place), {})[what] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        return course

    def _weights(self, step: int) -> Path:
        return self.folder / f"weights-{step}.safetensors"


def remove_model_checkpoint(folder: Path) -> None:
    """Removes what runs left there; the state first, without which the rest means nothing."""
    (folder / _STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    data = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_save(path, lambda temporary: save_file(data, temporary, metadata))
