"""One tuning run as files: the prompt, its learning curve and its record, next to each other.

The loop itself is in `tune.py`. This file resumes a killed run, evaluates once on the test split, and writes the record
last.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from spoton.errors import Interrupted
from spoton.evaluation.score import Mode, evaluate, mode_of
from spoton.events import OnEvent, silent
from spoton.locks import locked
from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.plots import draw_curve
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.task import Task
from spoton.tuning.outputs import remove_unfinished, require_free, save_unfinished
from spoton.tuning.prompt_run import Tuned
from spoton.tuning.recipe import Recipe
from spoton.tuning.record import require_place, save_prompt, versions, write_record
from spoton.tuning.tune import checkpoints_of, tune


def tune_to_file(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    out: Path,
    *,
    evaluation: Mode | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent = silent,
) -> dict[str, Any]:
    """Tunes a prompt, scores it on the test split, and saves it with its curve (`.png`) and record (`.json`).

    Args:
        model: The frozen model.
        task: The task to learn.
        recipe: How to tune.
        out: The prompt's file. Until the end a `.checkpoint` file is next to it.
        evaluation: `rank` or `generate`; None: chosen by the task.
        resume: Resume from the checkpoint of the same run, if there is one.
        overwrite: Whether a prompt at `out` is replaced, once the new one is finished.
        on_event: Called with progress events.

    Returns:
        The record, as plain values.

    Raises:
        SpotonError: `out` cannot name a prompt, cannot be written, exists, or is being written by another process. This
            is checked before tuning begins.
        DataError: The task has no training or validation examples.
        DivergenceError: Tuning diverged before there was anything to keep.
        Interrupted: Ctrl-C. The best prompt so far is saved; the message says how to resume.
    """
    mode = mode_of(task, evaluation)
    require_place(out)
    with locked(out):
        require_free(out, overwrite=overwrite, resume=resume)
        return _tuned_to_file(model, task, recipe, out, mode, resume, on_event)


def _tuned_to_file(
    model: FrozenModel, task: Task, recipe: Recipe, out: Path, mode: Mode, resume: bool, on_event: OnEvent
) -> dict[str, Any]:
    """Does the work of `tune_to_file` for an output that this process owns."""
    checkpoint = out.with_suffix(".checkpoint")
    tuned = tune(model, task, recipe, mode=mode, checkpoint=checkpoint, resume=resume, on_event=on_event)
    if tuned.stopped == "interrupted":
        raise _interrupted(tuned.message, tuned.prompt, out)
    try:
        prompt = _tested(model, task, recipe, mode, tuned, on_event)
    except KeyboardInterrupt as stop:
        raise _interrupted("Interrupted before the test was finished.", tuned.prompt, out) from stop
    save_prompt(prompt, out)
    curves = draw_curve(tuned.history, task.metric, task.name, out.with_suffix(".png"))
    choice = engine_for(model).choice
    record = _record(prompt, tuned, task, out) | {
        "curves": str(curves),
        "engine": asdict(choice) if choice else None,
    }
    write_record(out.with_suffix(".json"), record)
    for left in checkpoints_of(checkpoint):
        left.unlink(missing_ok=True)
    remove_unfinished(out)
    return record


def _interrupted(message: str, prompt: SoftPrompt, out: Path) -> Interrupted:
    place = save_unfinished(prompt, out)
    return Interrupted(
        f"{message} The best prompt so far is at {place}. The same command with --resume continues from the last "
        "evaluation, if there was one."
    )


def _tested(
    model: FrozenModel, task: Task, recipe: Recipe, mode: Mode, tuned: Tuned, on_event: OnEvent
) -> SoftPrompt:
    """Returns the tuned prompt with its test scores on its card; unchanged if there is no test split."""
    if not task.test:
        return tuned.prompt
    found = evaluate(
        model, tuned.prompt, task.test, task, mode,
        max_input_tokens=recipe.max_input_tokens, on_event=on_event, phase="test",
    )  # fmt: skip
    card = tuned.prompt.card
    scores = card.scores | {"test": found.scores}
    if found.uncalibrated is not None:
        scores["test_uncalibrated"] = found.uncalibrated.scores
    return replace(tuned.prompt, card=card.model_copy(update={"scores": scores}))


def _record(prompt: SoftPrompt, tuned: Tuned, task: Task, out: Path) -> dict[str, Any]:
    card = prompt.card
    return {
        "method": "prompt", "tuned_parameters": prompt.value.numel(), "tuned_bytes": prompt.value.numel() * 4,
        "task": task.name, "form": card.form, "model": card.model, "model_fingerprint": card.model_fingerprint,
        "metric": card.metric, "evaluation": card.evaluation, "splits": task.splits(), "scores": card.scores,
        "steps": tuned.steps, "best_step": card.best_step, "key_step": card.key_step, "stopped": tuned.stopped,
        "message": tuned.message, "truncated": tuned.truncated,
        "calibration": None if card.calibration is None else card.calibration.model_dump(),
        "activation_bytes": tuned.activation_bytes, "passes": tuned.passes, "notes": list(task.notes),
        "prompt": str(out), "seconds": tuned.seconds, "recipe": card.recipe, "data_hash": card.data_hash,
        "versions": versions(), "history": tuned.history,
    }  # fmt: skip
