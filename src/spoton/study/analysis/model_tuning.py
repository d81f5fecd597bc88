"""Transfer next to the paper's baselines by target: zero-shot, from scratch, transfer, retrieval, model tuning.

Also their costs: the parameters tuned per task, their bytes, and how many times larger than a prompt the model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.source_choices import aligned
from spoton.study.results.score_arrays import NOTHING, Array, Mean, ScoreArrays, known
from spoton.study.results.study_results import MODEL_TUNING, MULTI_TASK_MODEL_TUNING

RETRIEVED = 3
"""Number of most similar sources tried in the retrieval column; fixed, so that no result chooses it."""


def model_tuning(analysis: Analysis) -> dict[str, Any] | None:
    """Returns scores of the reported split by target, and tuned parameters; None if no model was tuned.

    Transfer uses the best source by validation in each seed; retrieval the best by validation of the `RETRIEVED` most
    similar ones. All are means over seeds; on a target with model tuning, over the seeds that it has. Multi-task model
    tuning is one more column where a mixture was tuned.
    """
    results, choices, metric = analysis.results, analysis.choices, analysis.metric
    model = _scores(analysis, MODEL_TUNING)
    if model is None:
        return None
    multi_task = _scores(analysis, MULTI_TASK_MODEL_TUNING)
    transfer = choices.best_by_validation()
    retrieval = None if metric is None else choices.best_of_top(metric, RETRIEVED)
    rows = []
    for t, target in enumerate(results.targets):
        seeds = np.isfinite(model[t]) if np.isfinite(model[t]).any() else np.full(model[t].shape, True)
        found = {
            "from_scratch": choices.scratch,
            "transfer": transfer,
            "retrieval": retrieval,
            "model_tuning": model,
            **({} if multi_task is None else {"multi_task_model_tuning": multi_task}),
        }
        means = {name: _mean(values, t, seeds).to_json() for name, values in found.items()}
        rows.append({"target": target, "zero_shot": known(results.zero_shot.get(target)), **means})
    return {
        "split": results.reported_split, "similarity": metric, "k": RETRIEVED, "targets": rows,
        "rates": list(results.metadata.get("model_tuning_rates", ())),
        "tuned": dict(results.metadata.get("tuned", {})), "ratio": ratio(results.metadata),
    }  # fmt: skip


def mixture_sentence(analysis: Analysis) -> str:
    """Returns how multi-task model tuning compares with model tuning on the targets and seeds that have both, since the
    mixture may have fewer; empty if none has."""
    alone, mixed = (_scores(analysis, method) for method in (MODEL_TUNING, MULTI_TASK_MODEL_TUNING))
    if alone is None or mixed is None or not (both := np.isfinite(alone) & np.isfinite(mixed)).any():
        return ""
    runs = f"{both.sum()} run{'' if both.sum() == 1 else 's'}"
    return (
        f" Multi-task model tuning scores {mixed[both].mean():.1f}, model tuning with the same targets and seeds "
        f"({runs}) {alone[both].mean():.1f}."
    )


def covers_the_study(analysis: Analysis) -> bool:
    """Returns whether a model was tuned on every target and seed that has a run from scratch."""
    model = _scores(analysis, MODEL_TUNING)
    return model is not None and bool(np.isfinite(model[np.isfinite(analysis.choices.scratch)]).all())


def _scores(analysis: Analysis, method: str) -> Array | None:
    """Returns `[T, N]` reported scores of model tuning, or of multi-task model tuning; None if no model was tuned."""
    scores = analysis.results.reported_extra.get(method)
    if not scores:
        return None
    model = ScoreArrays.of(scores, analysis.results.sources, analysis.results.targets)
    return aligned(model, analysis.reported, model.scratch)


def ratio(metadata: Mapping[str, Any]) -> float | None:
    """Returns the ratio of parameters per task in model tuning to prompt tuning; None if either is unknown."""
    tuned = metadata.get("tuned", {})
    if not {"prompt", "model"} <= tuned.keys():
        return None
    return float(tuned["model"]["parameters"] / tuned["prompt"]["parameters"])


def ratio_sentence(analysis: Analysis) -> str:
    """Returns the ratio in words; empty if unknown."""
    times = ratio(analysis.results.metadata)
    return (
        ""
        if times is None
        else f" Model tuning tunes {times:,.0f} times as many numbers per task as a prompt has."
    )


def _mean(scores: Array | None, target: int, seeds: NDArray[np.bool_]) -> Mean:
    return NOTHING if scores is None else Mean.of(scores[target][seeds])
