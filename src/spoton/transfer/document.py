"""The document of a comparison by `adapt`, as plain values: printed by `--json` and kept in the record.

It takes finished numbers and computes only means and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spoton.evaluation.baseline import Classical
from spoton.models.choose_engine import engine_for
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.transfer.arms import SeedRuns, TransferPlan
from spoton.transfer.comparison import Scores, verdict, worth
from spoton.transfer.kept_runs import KeptRuns
from spoton.transfer.speed import speed
from spoton.tuning.recipe import Recipe
from spoton.tuning.record import versions


def comparison_document(
    arms: KeptRuns,
    recipe: Recipe,
    how: TransferPlan,
    runs: Sequence[SeedRuns],
    scores: Mapping[str, Scores],
    *,
    chosen: str,
    index: int,
    prompt: SoftPrompt,
    judged: Scores,
    bare: Mapping[str, float | None],
    neighbour: Classical | None,
) -> dict[str, Any]:
    """Returns the result of a comparison as plain values.

    Args:
        arms: The kept runs, with model, task and mode.
        recipe: The recipe of both arms.
        how: How sources were ranked and used.
        runs: One entry per seed.
        scores: Scores of each arm.
        chosen: The better arm.
        index: Index of its best seed.
        prompt: Its prompt, or the ensemble of its seeds.
        judged: The scores of what is kept, to compare with the neighbour's: of the chosen arm, or of the ensemble.
        bare: Scores of the bare model.
        neighbour: TF-IDF and logistic regression.
    """
    task, ranking = arms.task, runs[index].ranking
    saved = speed(
        [run.scratch.history for run in runs], [run.curve for run in runs],
        [run.ranking.cost.steps for run in runs],
    )  # fmt: skip
    messages = [
        f"seed {pair.seed}: {words}: {run.message}"
        for pair in runs
        for words, run in (("from scratch", pair.scratch), ("transfer", pair.transfer))
        if run.message
    ]
    return target_facts(arms) | {
        "scores": arm_scores({arm: found.means() for arm, found in scores.items()}, bare, neighbour),
        "classical": None if neighbour is None else neighbour.to_json(),
        "seeds": {"n": len(runs)} | {arm: found.seeds() for arm, found in scores.items()},
        "verdict": verdict(scores["prompt_tuning"], scores["transfer"], task.metric),
        "worth": None if neighbour is None else worth(judged, neighbour, task.metric),
        "speed": None if saved is None else saved.to_json() | {"sentence": saved.sentence()},
        "calibration": None if prompt.card.calibration is None else prompt.card.calibration.model_dump(),
        "steps": runs[0].steps(), "method": how.method, "rank": how.rank, "similarity": how.metric,
        "ranking_cost": asdict(ranking.cost),
        "retrieved": [one.to_json() for one in ranking],
        "retrieved_by_seed": [[one.to_json() for one in run.ranking] for run in runs],
        "truncated": runs[0].scratch.truncated, "chosen": chosen,
        "damaged": {name: why for run in runs for name, why in run.ranking.damaged.items()},
        "notes": [*task.notes, *dict.fromkeys(note for run in runs for note in run.ranking.notes), *messages],
        "recipe": recipe.model_dump(),
    }  # fmt: skip


def target_facts(arms: KeptRuns) -> dict[str, Any]:
    """Returns the model, the task, and the settings they ran with."""
    model, task = arms.model, arms.task
    choice = engine_for(model).choice
    return {
        "task": task.name, "form": task.form, "model": model.name, "model_fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."), "metric": task.metric, "evaluation": arms.mode,
        "splits": task.splits(), "data_hash": task.data_hash(), "versions": versions(),
        "engine": asdict(choice) if choice else None,
    }  # fmt: skip


def arm_scores(
    means: Mapping[str, Mapping[str, float | None]],
    bare: Mapping[str, float | None],
    neighbour: Classical | None,
) -> dict[str, dict[str, float | None]]:
    """Returns scores by arm and split, with those of the bare model and of the classical neighbour."""
    found: dict[str, dict[str, float | None]] = {"zero_shot": dict(bare)}
    found |= {arm: dict(own) for arm, own in means.items()}
    if neighbour is not None:
        found["classical"] = {split: neighbour.score(split) for split in ("validation", "test")}
    return found
