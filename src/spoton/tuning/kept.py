"""What everybody shares who keeps finished runs: tuned to the end, tested once, and found again by name.

A run is named by the hash of all that decides it. Its document is written last and in one step, so a whole document
says that the run is complete, and a damaged one counts for nothing. Where documents lie is their keepers' business:
a study keeps cells (`study/run`), a comparison its arms (`transfer/kept_runs.py`).
"""

from __future__ import annotations

from typing import Any

from spoton.errors import Interrupted
from spoton.evaluation.score import Mode, evaluate
from spoton.events import OnEvent
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.sealing import unsealed_json
from spoton.tasks.task import Task
from spoton.tuning.full_model.tune import TunedModel
from spoton.tuning.prompt_run import Job, Tuned
from spoton.tuning.sealed_tensors import discard_if_damaged
from spoton.tuning.tune import tune_job


def tune_to_end(model: FrozenModel, job: Job) -> Tuned:
    """Tunes one prompt, and accepts nothing but the end of the run. A damaged checkpoint is started anew.

    Raises:
        Interrupted: Ctrl-C; the message says in which phase and how far it was.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
    """
    if job.checkpoint is not None:
        discard_if_damaged(job.checkpoint)
    tuned = tune_job(model, job)
    require_end(tuned, job.phase)
    return tuned


def require_end(tuned: Tuned | TunedModel, phase: str) -> None:
    """Refuses a run that was cut off.

    Raises:
        Interrupted: It was.
    """
    if tuned.stopped == "interrupted":
        raise Interrupted(f"{phase}: {tuned.message}")


def score_test_split(
    model: FrozenModel,
    prompt: SoftPrompt | None,
    task: Task,
    mode: Mode,
    *,
    max_input_tokens: int,
    on_event: OnEvent,
    phase: str,
) -> dict[str, float]:
    """Returns every metric on the test split, which chooses nothing; None scores the bare (or tuned) model."""
    found = evaluate(
        model, prompt, task.test, task, mode,
        max_input_tokens=max_input_tokens, on_event=on_event, phase=phase,
    )  # fmt: skip
    return found.scores


def whole_document(data: bytes | None) -> dict[str, Any] | None:
    """Returns the sealed document in a file; None if there is none, or it is empty, cut off, damaged or something
    else."""
    if not data:
        return None
    try:
        return unsealed_json(data)
    except (ValueError, RecursionError):
        return None
