"""The checkpoint of a model tuning run, which a resumed run reads: weights, optimizer state, history.

A folder with `state.safetensors` (optimizer and history) and `weights-STEP.safetensors` of the latest and of the best
evaluation. Every file is replaced in one step. The state names the two steps and the hashes of their files, and is
written last. So a kill at any moment leaves a state whose weights exist, and damage is always detected.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spoton.errors import RecipeError
from spoton.files import atomic_save, sha256_of_file
from spoton.tuning.course import Course
from spoton.tuning.optimizer import restore_state
from spoton.tuning.sealed_tensors import read_hashed, read_sealed, write_sealed

if TYPE_CHECKING:
    from spoton.tuning.full_model.weights import WeightsLearner
    from spoton.tuning.training_run import Learner

_STATE = "state.safetensors"
_HASHES = "sha256"


class ModelCheckpoint:
    """The checkpoint folder of one run.

    Args:
        folder: The folder; made if it does not exist.
        identity: Hash of everything that decides the run; a state of another run is refused.
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
        now, best = self._weights(course.step), self._weights(course.best_step)
        known = self._known_hashes()
        _save({name: weight.detach() for name, weight in weights.items()}, now)
        hashes = {now.name: sha256_of_file(now)}
        if best != now:
            if not best.is_file():  # the start is the best so far, and step 0 writes nothing
                _save(cast("WeightsLearner", learner).best, best)
            hashes[best.name] = known.get(best.name) or sha256_of_file(best)
        tensors = {
            f"{place}.{name}": torch.as_tensor(value)
            for place, held in optimizer.state_dict()["state"].items()
            for name, value in held.items()
        }
        plain = asdict(course) | {"identity": self._identity, _HASHES: hashes}
        write_sealed(self.folder / _STATE, tensors, plain)
        for file in self.folder.glob("weights-*.safetensors"):
            if file not in (now, best):
                file.unlink()

    def read(self, learner: Learner, optimizer: torch.optim.Optimizer) -> Course:
        """Restores weights, best weights and optimizer.

        Raises:
            RecipeError: A file is damaged, or belongs to a run with another recipe, task or model.
        """
        held = cast("WeightsLearner", learner)
        try:
            tensors, plain = read_sealed(self.folder / _STATE)
            if plain.pop("identity") != self._identity:
                raise RecipeError(
                    f"{self.folder} was left by a run with another recipe, task or model; resuming would mix the two. "
                    "Repeat the command it was started with, or leave --resume out to start anew."
                )
            hashes: dict[str, str] = plain.pop(_HASHES)
            course = Course.of(plain)
            now, held.best = (
                read_hashed(file, hashes[file.name])
                for file in (self._weights(course.step), self._weights(course.best_step))
            )
            with torch.no_grad():  # the optimizer refers to the tensors, so their values are replaced
                for name, weight in held.weights.items():
                    weight.copy_(now[name])
            restore_state(optimizer, tensors)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(
                f"{self.folder} is not a usable checkpoint ({error}). Remove it and start again."
            ) from error
        return course

    def _known_hashes(self) -> dict[str, str]:
        """Returns the hashes that the last state names; hashing an older file again would accept damage as content."""
        try:
            hashes: dict[str, str] = read_sealed(self.folder / _STATE)[1][_HASHES]
        except (OSError, ValueError, KeyError):
            return {}
        return hashes

    def _weights(self, step: int) -> Path:
        return self.folder / f"weights-{step}.safetensors"


def remove_model_checkpoint(folder: Path) -> None:
    """Removes what runs left in the folder; the state first, since the rest means nothing without it."""
    (folder / _STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    data = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_save(path, lambda temporary: save_file(data, temporary))
