"""Shared code of modules that keep finished runs: tuned to the end, and found again by name.

A run is named by the hash of everything that decides it. Its document is written last and in one step. So an intact
document means that the run is complete, and a damaged one counts as missing. The callers decide where documents are:
a study keeps cells (`study/run`), a comparison its arms (`transfer/kept_runs.py`).
"""

from __future__ import annotations

from typing import Any

from spoton.errors import Interrupted
from spoton.models.frozen import FrozenModel
from spoton.sealing import unsealed_json
from spoton.tuning.full_model.tune import TunedModel
from spoton.tuning.prompt_run import Job, Tuned
from spoton.tuning.sealed_tensors import discard_if_damaged
from spoton.tuning.tune import checkpoints_of, tune_job


def tune_to_end(model: FrozenModel, job: Job) -> Tuned:
    """Tunes one prompt to the end of its run. A damaged checkpoint is discarded.

    Raises:
        Interrupted: Ctrl-C; the message gives the phase and the progress.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
    """
    for file in [] if job.checkpoint is None else checkpoints_of(job.checkpoint):
        discard_if_damaged(file)
    tuned = tune_job(model, job)
    require_end(tuned, job.phase)
    return tuned


def require_end(tuned: Tuned | TunedModel, phase: str) -> None:
    """Refuses a run that was interrupted.

    Raises:
        Interrupted: The run was interrupted.
    """
    if tuned.stopped == "interrupted":
        raise Interrupted(f"{phase}: {tuned.message}")


def whole_document(data: bytes | None) -> dict[str, Any] | None:
    """Returns the sealed document in a file; None if it is missing, empty, cut off, damaged or something else."""
    if not data:
        return None
    try:
        return unsealed_json(data)
    except (ValueError, RecursionError):
        return None
