"""Evaluations of runs that are tuned together, in shared passes: the candidates of all runs of a task at one step.

On a GPU a pass of a few rows takes as long as one of a few hundred, so that many runs would spend more time on
evaluations than on steps. On a CPU shared passes gain nothing, and each run evaluates alone (`TrainingRun.evaluation`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor

from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.score import Evaluation, member_scores, ranked
from spoton.tuning.training_run import TrainingRun

Found = dict[TrainingRun, dict[str, Evaluation]]
"""The evaluations of a run's candidates, by name."""


def shared_evaluations(runs: Sequence[TrainingRun]) -> Found:
    """Returns the evaluations of the runs for which shared passes are faster than passes of their own.

    Args:
        runs: Runs that evaluate after this step.
    """
    return evaluated_together([run for run in runs if run.learner.model.device.type != "cpu"])


def evaluated_together(runs: Sequence[TrainingRun]) -> Found:
    """Evaluates the candidates of runs by `rank`, in shared passes; runs that generate are left out.

    Each result is that of `TrainingRun.evaluation`, up to the order in which floating-point numbers are summed.

    Args:
        runs: Runs in progress.
    """
    groups: dict[Hashable, list[tuple[TrainingRun, str, Tensor]]] = {}
    for run in runs:
        if run.mode != "rank":
            continue
        for name, prompt in run.learner.candidates().items():
            groups.setdefault(_same_rows(run, prompt), []).append((run, name, prompt))
    found: Found = {}
    for members in groups.values():
        for (run, name, _), evaluation in zip(members, _evaluated(members), strict=True):
            found.setdefault(run, {})[name] = evaluation
    return found


def _same_rows(run: TrainingRun, prompt: Tensor) -> Hashable:
    """Returns what runs must share to be scored on the same tokens after a prompt `[P, D]`."""
    recipe = run.recipe
    return id(run.learner.model), id(run.task), recipe.max_input_tokens, recipe.label_score, len(prompt)


def _evaluated(members: Sequence[tuple[TrainingRun, str, Tensor]]) -> list[Evaluation]:
    """Returns the evaluation of each prompt `[P, D]` on the validation split of their task."""
    run, _, prompt = members[0]
    model, task, labels = run.learner.model, run.task, run.task.labels or ()
    encoded = encode(
        model, task.validation, end=needs_end(model, labels), prompt_length=len(prompt),
        max_input_tokens=run.recipe.max_input_tokens, labels=labels,
    )  # fmt: skip
    scores = member_scores(
        model, [prompt for _, _, prompt in members], encoded, labels, label_score=run.recipe.label_score
    )
    return [ranked(task, task.validation, own, None, encoded.truncated) for own in scores]
