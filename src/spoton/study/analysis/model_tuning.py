"""Transfer next to the paper's baselines by target: zero-shot, from scratch, transfer, retrieval, model tuning.

Also their costs: the parameters tuned per task, their bytes, and how many times larger than a prompt the model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spoton.study.analysis.analyse import Analysis
from spoton.study.results.score_arrays import NOTHING, Array, Mean, ScoreArrays, known
from spoton.study.results.study_results import MODEL_TUNING

RETRIEVED = 3
"""Number of most similar sources tried in the retrieval column; fixed, so that no result chooses it."""


def model_tuning(analysis: Analysis) -> dict[str, Any] | None:
    """Returns scores of the reported split by target, and tuned parameters; None if no model was tuned.

    Transfer uses the best source by validation in each seed; retrieval the best by validation of the `RETRIEVED` most
    similar ones. All are means over seeds.
    """
    results = analysis.results
    scores = results.reported_extra.get(MODEL_TUNING)
    if not scores:
        return None
    model = ScoreArrays.of(scores, results.sources, results.targets)
    metric = analysis.metric
    transfer = analysis.choices.best_by_validation()
    retrieval = None if metric is None else analysis.choices.best_of_top(metric, RETRIEVED)
    rows = [
        {
            "target": target, "zero_shot": known(results.zero_shot.get(target)),
            "from_scratch": analysis.reported.cell(None, target).to_json(),
            "transfer": _mean(transfer, t).to_json(), "retrieval": _mean(retrieval, t).to_json(),
            "model_tuning": model.cell(None, target).to_json(),
        }
        for t, target in enumerate(results.targets)
    ]  # fmt: skip
    return {
        "split": results.reported_split, "similarity": metric, "k": RETRIEVED, "targets": rows,
        "rates": list(results.metadata.get("model_tuning_rates", ())),
        "tuned": dict(results.metadata.get("tuned", {})), "ratio": ratio(results.metadata),
    }  # fmt: skip


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


def _mean(scores: Array | None, target: int) -> Mean:
    return NOTHING if scores is None else Mean.of(scores[target])
