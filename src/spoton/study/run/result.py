"""The result of a finished cell: one JSON document, with the same columns for every kind of cell.

This module builds plain values from plain values; `store.py` knows where the documents are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from spoton.study.plan.cells import Cell, LibrarySource
from spoton.tasks.task import Task
from spoton.tuning.full_model.tune import TunedModel
from spoton.tuning.prompt_run import Tuned
from spoton.tuning.record import versions

ScoresBySplit = Mapping[str, Mapping[str, float]]
"""Every metric by split."""


@dataclass(frozen=True)
class Result:
    """The outcome of a cell.

    Attributes:
        scores: Scores by split and metric.
        tuned: The run; None: nothing was tuned.
        more: Columns that only this kind of cell has.
    """

    scores: ScoresBySplit
    tuned: Tuned | TunedModel | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def document_of_result(
    cell: Cell, task: Task, result: Result, *, seconds: float, model_name: str
) -> dict[str, Any]:
    """Returns the document of a finished cell.

    Args:
        cell: The cell.
        task: Its task.
        result: Its outcome.
        seconds: Wall time of the cell, or its share of the time of cells tuned together.
        model_name: Name of the frozen model.
    """
    run = {} if result.tuned is None else _run(result.tuned)
    return (
        cell.facts()
        | _scored(task, result.scores)
        | run
        | dict(result.more)
        | _how(cell, seconds, model_name)
    )


def document_of_source(cell: LibrarySource, found: Mapping[str, Any], *, model_name: str) -> dict[str, Any]:
    """Returns the document of a source from a library; its time is zero.

    Args:
        cell: The cell.
        found: The facts on its card, in the columns of a result.
        model_name: Name of the frozen model.
    """
    return cell.facts() | dict(found) | _how(cell, 0.0, model_name)


def _how(cell: Cell, seconds: float, model_name: str) -> dict[str, Any]:
    """Returns how the cell ran."""
    return {
        "seconds": seconds, "recipe": cell.tuned_by().model_dump(), "data_hash": cell.data_hash,
        "model": model_name, "model_fingerprint": cell.held.fingerprint, "dtype": cell.held.dtype,
        "threads": torch.get_num_threads(), "versions": versions(),
    }  # fmt: skip


def _scored(task: Task, scores: ScoresBySplit) -> dict[str, Any]:
    """Returns the task and the scores by split and metric."""
    return {
        "scores": {split: by_metric[task.metric] for split, by_metric in scores.items()}, "all_scores": scores,
        "splits": task.splits(), "labels": None if task.labels is None else len(task.labels), "family": task.family,
        "metric": task.metric, "form": task.form, "source_of_rows": task.source,
    }  # fmt: skip


def _run(tuned: Tuned | TunedModel) -> dict[str, Any]:
    """Returns the course of the run, for a prompt or for all weights."""
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    return {
        "steps": tuned.steps, "looks": [entry for entry in tuned.history if "validation" in entry],
        "first_loss": losses[0] if losses else None, "last_loss": losses[-1] if losses else None,
        "truncated": tuned.truncated, "message": tuned.message,
    }  # fmt: skip
