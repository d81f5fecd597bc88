"""Adaptation without tuning: the best source, calibrated on training rows and tested once.

It takes seconds instead of minutes. What tuning would add remains unknown: the only comparisons are the bare model and
the classical neighbour.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from spoton.errors import Interrupted, RecipeError
from spoton.evaluation.baseline import Classical
from spoton.evaluation.score import Mode, mode_of
from spoton.events import OnEvent, silent
from spoton.locks import locked
from spoton.models.frozen import FrozenModel
from spoton.prompts.library import PromptLibrary
from spoton.tasks.task import Task
from spoton.transfer.adapt import Adapted, by_metric, neighbour, target_sources, zero_shot
from spoton.transfer.comparison import Scores, worth
from spoton.transfer.document import arm_scores, target_facts
from spoton.transfer.kept_runs import KeptRuns, Run
from spoton.transfer.ranking.trial import trial
from spoton.transfer.sources import Ranking, SourcePrompt
from spoton.transfer.work_folder import finished_parts, remove_parts, require_out, work_folder
from spoton.tuning.recipe import PRESETS, Recipe
from spoton.tuning.record import save_prompt, write_record


def adapt_untuned(
    model: FrozenModel,
    task: Task,
    libraries: Sequence[PromptLibrary],
    recipe: Recipe | None = None,
    *,
    k: int = 1,
    evaluation: Mode | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    on_event: OnEvent = silent,
) -> Adapted:
    """Gives the source that a trial ranks first a card of the task, a calibration and scores, without tuning.

    The target's own text is a candidate too, and may be the result.

    Args:
        model: The frozen model.
        task: The target task; its test split is used once, at the end.
        libraries: The libraries whose sources are tried.
        recipe: The recipe, for its seed, input length, label scores, and the length of the own text. None: the default.
        k: Number of the best that are scored on the validation split, which chooses between them.
        evaluation: `rank` or `generate`; None: chosen by the task.
        out: Where to save the prompt, with its record (`.json`) next to it.
        overwrite: Whether a prompt at `out` is replaced.
        on_event: Called with progress events.

    Raises:
        LibraryError: There is no source.
        RecipeError: k is below 1.
        SpotonError: `out` cannot name a prompt, cannot be written, or exists.
        Interrupted: Ctrl-C; finished parts are kept next to `out`.

    Example:
        >>> adapt_untuned(model, task, [starter_library()]).to_json()["scores"]["transfer"]  # doctest: +SKIP
        {'validation': 63.5, 'test': 62.1}
    """
    if k < 1:
        raise RecipeError(f"k must be at least 1; found {k}.")
    recipe, mode = recipe or PRESETS["decoder"], mode_of(task, evaluation)
    sources = target_sources(model, task, libraries, "trial")
    arms = KeptRuns(model, task, mode, None if out is None else work_folder(out), on_event)
    if out is None:
        return _untuned(arms, sources, recipe, k, None)
    require_out(out, overwrite=overwrite)
    with locked(out):
        require_out(out, overwrite=overwrite)  # another process may have finished meanwhile
        return _untuned(arms, sources, recipe, k, out)


def _untuned(
    arms: KeptRuns, sources: Sequence[SourcePrompt], recipe: Recipe, k: int, out: Path | None
) -> Adapted:
    """Runs `adapt_untuned` after its arguments have been checked."""
    began, task = time.monotonic(), arms.task
    try:
        ranking = trial(
            arms.model, task, sources, k, recipe, folder=arms.folder, on_event=arms.on_event,
            phase="trial of sources",
        )  # fmt: skip
        scored = [
            arms.untuned(f"{one.name}: validation", recipe, one.prompt.value, one.parents(1.0))
            for one in ranking
        ]
        best = max(scored, key=lambda run: run.rank)
        bare = zero_shot(arms, recipe)
        test = arms.test("untuned, test", best.prompt, recipe.max_input_tokens) if task.test else {}
    except KeyboardInterrupt as stop:
        raise Interrupted(f"{str(stop) or 'Interrupted.'}{finished_parts(out)}") from stop
    scores = Scores((best.validation,), (test["test"],) if test else ())
    held = best.prompt.card.scores | by_metric(task, test)
    prompt = replace(best.prompt, card=best.prompt.card.model_copy(update={"scores": held}))
    fitted, unfitted = neighbour(task)
    document = _document(arms, ranking, best, scores, bare, fitted) | {
        "prompt": None if out is None else str(out), "seconds": time.monotonic() - began,
    }  # fmt: skip
    document["notes"] += unfitted
    if out is not None:
        save_prompt(prompt, out)
        write_record(out.with_suffix(".json"), document)
        remove_parts(out)
    return Adapted(prompt, "transfer", [], document)


def _document(
    arms: KeptRuns,
    ranking: Ranking,
    best: Run,
    scores: Scores,
    bare: dict[str, float | None],
    neighbour: Classical | None,
) -> dict[str, Any]:
    card, metric = best.prompt.card, arms.task.metric
    split = "test" if scores.test else "validation"
    name = card.parents[0].name if card.parents else "the task's own text"
    reached, before = scores.means()[split], bare[split]
    return target_facts(arms) | {
        "scores": arm_scores({"transfer": scores.means()}, bare, neighbour),
        "classical": None if neighbour is None else neighbour.to_json(),
        "seeds": {"n": 1, "transfer": scores.seeds()},
        "verdict": f"{split} {metric} {reached:.1f} with {name}, untuned; {before:.1f} for the model alone.",
        "worth": None if neighbour is None else worth(scores, neighbour, metric),
        "speed": None, "calibration": None if card.calibration is None else card.calibration.model_dump(),
        "steps": {"transfer": 0}, "method": "untuned", "rank": "trial", "ranking_cost": asdict(ranking.cost),
        "retrieved": [one.to_json() for one in ranking], "truncated": best.truncated, "chosen": "transfer",
        "damaged": ranking.damaged, "notes": [*arms.task.notes, *ranking.notes], "recipe": card.recipe,
    }  # fmt: skip
