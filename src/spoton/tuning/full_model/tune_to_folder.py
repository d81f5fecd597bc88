"""One run of model tuning as a folder: a model that `load_model` reads, with its curve and record.

The loop itself is in `full_model/tune.py`. This file resumes a killed run, evaluates once on the test split, and writes
the record last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spoton.errors import Interrupted, SpotonError
from spoton.evaluation.score import Mode, evaluate, mode_of
from spoton.events import OnEvent, silent
from spoton.files import let_others_read, require_writable, writing
from spoton.locks import locked, scratch_folder
from spoton.models.frozen import FrozenModel
from spoton.parsing import parse_json
from spoton.plots import draw_curve
from spoton.tasks.task import Task
from spoton.tuning.full_model.checkpoint import remove_model_checkpoint
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.full_model.tune import TunedModel, tune_model
from spoton.tuning.record import PROMPT_SUFFIX, versions, write_record

RECORD = "record.json"
CURVE = "curve.png"
CHECKPOINT = "checkpoint"
_BYTES = 4  # of a float32
# Files that not every model has, and that `load_model` would read as part of a model that has none.
_READ_IF_THERE = (
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "generation_config.json",
    "chat_template.jinja", "added_tokens.json", "special_tokens_map.json", "tokenizer.model", "spiece.model",
    "vocab.json", "merges.txt",
)  # fmt: skip


def tune_model_to_folder(
    model: FrozenModel,
    task: Task,
    recipe: ModelRecipe,
    out: Path,
    *,
    evaluation: Mode | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent = silent,
) -> dict[str, Any]:
    """Tunes all weights, scores them on the test split, and saves model, curve and record in a folder.

    Args:
        model: The model to start from; it does not change.
        task: The task to learn.
        recipe: How to tune.
        out: The folder. Until the end it holds a folder `checkpoint`.
        evaluation: `rank` or `generate`; None: chosen by the task.
        resume: Resume from the checkpoint of the same run, if there is one.
        overwrite: Whether a model in `out` is replaced, once the new one is finished.
        on_event: Called with progress events.

    Returns:
        The record, as plain values.

    Raises:
        SpotonError: `out` cannot hold a model, holds a finished one, or is being written by another process. This is
            checked before tuning begins.
        DataError: The task has no training or validation examples.
        DivergenceError: Tuning diverged before there was anything to keep.
        Interrupted: Ctrl-C. The best weights so far are saved; the message says how to resume.
    """
    mode = mode_of(task, evaluation)
    _require_folder(out, model)
    with locked(out):
        if (out / RECORD).exists() and not overwrite:
            raise SpotonError(
                f"{out} holds a finished model. Choose another --out, or give --overwrite to replace it when the new "
                "one is finished."
            )
        return _tuned_to_folder(model, task, recipe, out, mode, resume, on_event)


def _tuned_to_folder(
    model: FrozenModel,
    task: Task,
    recipe: ModelRecipe,
    out: Path,
    mode: Mode,
    resume: bool,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Does the work of `tune_model_to_folder` in a folder that this process owns."""
    checkpoint = out / CHECKPOINT
    if not resume:
        remove_model_checkpoint(checkpoint)
    tuned = tune_model(
        model, task, recipe, mode=mode, checkpoint=checkpoint, resume=resume, on_event=on_event
    )
    if tuned.stopped == "interrupted":
        raise _interrupted(tuned.message, tuned, out)
    scores = dict(tuned.scores)
    try:
        if task.test:
            found = evaluate(
                tuned.model, None, task.test, task, mode,
                max_input_tokens=recipe.max_input_tokens, label_score=recipe.label_score, on_event=on_event,
                phase="test",
            )  # fmt: skip
            scores["test"] = found.scores
    except KeyboardInterrupt as stop:
        raise _interrupted("Interrupted before the test was finished.", tuned, out) from stop
    save_model(tuned.model, out)
    curve = draw_curve(tuned.history, task.metric, task.name, out / CURVE)
    record = {
        "method": "model", "task": task.name, "form": task.form, "model": model.name,
        "model_fingerprint": model.fingerprint,
        "parents": _lineage(model), "tuned_fingerprint": tuned.model.fingerprint,
        "tuned_parameters": tuned.parameters, "tuned_bytes": tuned.parameters * _BYTES,
        "metric": task.metric, "evaluation": mode, "splits": task.splits(), "scores": scores,
        "steps": tuned.steps, "best_step": tuned.best_step, "stopped": tuned.stopped, "message": tuned.message,
        "truncated": tuned.truncated, "activation_bytes": tuned.activation_bytes, "passes": tuned.passes,
        "notes": list(task.notes), "folder": str(out), "curves": str(curve), "seconds": tuned.seconds,
        "recipe": recipe.model_dump(), "seed": recipe.seed, "data_hash": task.data_hash(), "source": task.source,
        "license": task.license, "versions": versions(), "history": tuned.history,
    }  # fmt: skip
    write_record(out / RECORD, record)
    remove_model_checkpoint(checkpoint)
    return record


def save_model(model: FrozenModel, out: Path) -> None:
    """Saves a model and its tokenizer as a folder that `load_model` reads.

    Everything is first written next to its final place. Then each file gets its name, the weights last. The record of
    an earlier run is removed before, since it describes another model, and so are its files that this model lacks.

    Raises:
        SpotonError: The folder cannot be written.
    """
    with writing(out), scratch_folder(out) as scratch:
        model.network.save_pretrained(scratch)
        let_others_read(scratch)
        model.tokenizer.save_pretrained(scratch)
        (out / RECORD).unlink(missing_ok=True)
        new = {file.name for file in scratch.iterdir()}
        for old in [file for pattern in _READ_IF_THERE for file in out.glob(pattern) if file.name not in new]:
            old.unlink()
        for file in sorted(scratch.iterdir(), key=lambda file: file.suffix == PROMPT_SUFFIX):
            file.replace(out / file.name)


def _require_folder(out: Path, model: FrozenModel) -> None:
    """Checks before a run that its model can be written and does not get in the way of other files.

    Raises:
        SpotonError: The name is that of a prompt file, the folder holds other things, or it cannot be written.
    """
    if out.suffix == PROMPT_SUFFIX or out.is_file():
        raise SpotonError(
            f"{out} cannot be the folder of a model: model tuning leaves all weights, not a prompt. "
            f"Use --out {out.with_suffix('')}."
        )
    if out.is_dir() and any(out.iterdir()):
        if Path(model.name).is_dir() and out.samefile(model.name):
            raise SpotonError(f"{out} is the model that tuning starts from. Choose another folder for --out.")
        if not (out / RECORD).is_file() and not (out / CHECKPOINT).is_dir():
            raise SpotonError(
                f"{out} holds files that no run of model tuning left, and they could be overwritten. Choose a new or "
                "empty folder for --out."
            )
    require_writable(out / RECORD)


def _lineage(model: FrozenModel) -> list[dict[str, Any]]:
    """Returns the tasks the model was tuned on before, oldest first, from the records in its folders."""
    try:
        record = parse_json((Path(model.name) / RECORD).read_text(encoding="utf-8"))
        own = {name: record[name] for name in ("model", "model_fingerprint", "task", "data_hash", "recipe")}
        return [*record["parents"], own]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a pretrained model, which has no such record


def _interrupted(message: str, tuned: TunedModel, out: Path) -> Interrupted:
    if (out / RECORD).exists():
        kept = f"The finished model in {out} is as it was."
    else:
        save_model(tuned.model, out)
        # Before the first evaluation there is no checkpoint; its folder marks the files as those of a run.
        (out / CHECKPOINT).mkdir(exist_ok=True)
        kept = f"The best weights so far are in {out}."
    return Interrupted(
        f"{message} {kept} The same command with --resume continues from the last "
        "evaluation, if there was one."
    )
