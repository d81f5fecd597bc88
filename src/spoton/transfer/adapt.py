"""Adapting a frozen model to a task by prompt transfer: rank sources, transfer, tune, compare, test once.

The comparison is at equal budget. Tuning from scratch takes `recipe.steps` steps. Transfer pays for its ranking from
the same number: `recipe.key_step` steps for the target's key, or the equivalent of a trial. It divides the rest among
its candidates. The key comes from the first steps of tuning from scratch, so it is read there, and the same steps count
for both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spoton.errors import DataError, Interrupted, RecipeError
from spoton.evaluation.arguments import require_loaded
from spoton.evaluation.baseline import Classical, classical
from spoton.evaluation.score import Mode, evaluate, mode_of
from spoton.events import OnEvent, silent
from spoton.locks import locked
from spoton.models.frozen import FrozenModel
from spoton.plots import draw_arms
from spoton.prompts.ensemble import ensemble_of
from spoton.prompts.library import PromptLibrary
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.task import Task
from spoton.transfer.arms import Rank, SeedRuns, TransferPlan, ranked, transferred, tried_first
from spoton.transfer.combining.methods import Method
from spoton.transfer.combining.mixture import RowsOf, with_rows
from spoton.transfer.comparison import Scores
from spoton.transfer.document import comparison_document
from spoton.transfer.kept_runs import KeptRuns, Run
from spoton.transfer.similarity import Similarity
from spoton.transfer.sources import SourcePrompt, sources_for
from spoton.transfer.work_folder import finished_parts, remove_parts, require_out, work_folder
from spoton.tuning.outputs import save_unfinished
from spoton.tuning.recipe import PRESETS, Recipe, require_recipe
from spoton.tuning.record import save_prompt, write_record

# Every further candidate shortens the tuning of all, and the budget is small. Larger k is not measured yet.
DEFAULT_K = 1


@dataclass(frozen=True)
class Adapted:
    """The result of `adapt`.

    Attributes:
        prompt: The best prompt by validation, over arms and seeds, with its test score on its card.
        chosen: The arm it comes from: `transfer` or `prompt_tuning`.
        runs: One entry per seed; empty if nothing was tuned.
        document: All of it as plain values, as printed by `--json` and kept in the record.
    """

    prompt: SoftPrompt
    chosen: str
    runs: list[SeedRuns] = field(repr=False)
    document: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Returns the result as plain values."""
        return self.document


def adapt(
    model: FrozenModel,
    task: Task,
    libraries: Sequence[PromptLibrary],
    recipe: Recipe | None = None,
    *,
    method: Method = "best-of-top-k",
    rank: Rank = "similarity",
    k: int = DEFAULT_K,
    metric: Similarity = "average_tokens",
    rows_of: RowsOf | None = None,
    seeds: int = 1,
    ensemble: bool = False,
    evaluation: Mode | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    on_event: OnEvent = silent,
) -> Adapted:
    """Adapts `model` to `task` with the most transferable prompts of `libraries` (SPoT, section 3).

    Args:
        model: The frozen model.
        task: The target task; its test split is used once, at the end.
        libraries: The libraries to retrieve sources from.
        recipe: How target prompts are tuned; its steps are the budget of either arm. None: the default.
        method: How the retrieved prompts are combined.
        rank: How sources are ranked: similarity of keys, of displacements, or a trial on the target's rows.
        k: Number of sources to retrieve.
        metric: The similarity to rank by.
        rows_of: Returns the rows of a source, for `mixture`; None: of tasks of the catalog.
        seeds: Number of seeds for each arm, from `recipe.seed` on.
        ensemble: Whether the prompts of all seeds of the better arm are kept and answer together, instead of the best
            of them.
        evaluation: `rank` or `generate`; None: chosen by the task.
        out: Where to save the prompt, with its record (`.json`) and learning curves (`.png`) next to it. Finished
            parts are kept in a `.work` folder next to it until the end, so a killed call resumes when repeated.
        overwrite: Whether a prompt at `out` is replaced, once the new one is finished.
        on_event: Called with progress events.

    Raises:
        RecipeError: The budget is too small for the ranking and the candidates, or the recipe is not a recipe.
        LibraryError: There is no source; the message says how many prompts were left out, and why. Or `libraries` is
            not a list of libraries.
        ModelError, DataError: The model or the task is not loaded.
        SpotonError: `out` cannot name a prompt, cannot be written, exists, or is being written by another process. This
            is checked first.
        Interrupted: Ctrl-C. The best prompt so far is saved at `out` and the message says so.

    Examples:
        >>> adapted = adapt(model, task, [starter_library()], out=Path("reviews.safetensors"))  # doctest: +SKIP
        >>> adapted.to_json()["verdict"]  # doctest: +SKIP
        'test accuracy 70.2 with transfer, 61.0 from scratch (+9.2): ...'
    """
    require_loaded(model, task)
    recipe, mode = recipe or PRESETS["decoder"], mode_of(task, evaluation)
    require_recipe(recipe)
    out, how = None if out is None else Path(out), TransferPlan(method, rank, k, metric, rows_of)
    how.require_counts(seeds)
    if ensemble and seeds < 2:
        raise RecipeError(
            "An ensemble needs the prompts of at least two seeds; found 1. Give --seeds 3, or more."
        )
    sources = target_sources(model, task, libraries, rank)
    notes: list[str] = []
    if method == "mixture" and rows_of is None:
        everything, sources = sources, with_rows(sources)
        if left := [
            entry.name for _, entry in everything if entry.name not in {one.name for _, one in sources}
        ]:
            notes = [f"Left out for lack of their rows, which a mixture reads: {', '.join(left)}."]
    how.require_budget(recipe, len(sources), seeds)
    runs = KeptRuns(model, task, mode, None if out is None else work_folder(out), on_event)
    if out is None:
        return _adapted(runs, sources, recipe, how, seeds, ensemble, None, notes)
    require_out(out, overwrite=overwrite)
    with locked(out):
        require_out(out, overwrite=overwrite)  # another process may have finished meanwhile
        return _adapted(runs, sources, recipe, how, seeds, ensemble, out, notes)


def target_sources(
    model: FrozenModel, task: Task, libraries: Sequence[PromptLibrary], rank: Rank
) -> list[SourcePrompt]:
    """Returns the prompts that a ranking can choose from for a task.

    Raises:
        LibraryError: There is no source.
    """
    return sources_for(
        libraries, model.fingerprints, task=task.name, data_hash=task.data_hash(), source=task.source,
        need_key=rank != "trial",
    )  # fmt: skip


def _adapted(
    arms: KeptRuns,
    sources: Sequence[SourcePrompt],
    recipe: Recipe,
    how: TransferPlan,
    seeds: int,
    ensemble: bool,
    out: Path | None,
    notes: Sequence[str],
) -> Adapted:
    """Runs `adapt` after its arguments have been checked."""
    began, task = time.monotonic(), arms.task
    runs: list[SeedRuns] = []
    scratch: Run | None = None
    try:
        for seed in range(recipe.seed, recipe.seed + seeds):
            own = recipe.changed(seed=seed)
            ranking = tried_first(arms, sources, own, how)
            scratch = arms.tuned(f"seed {seed}: from scratch", own)
            if ranking is None:
                ranking = ranked(arms, scratch, sources, own, how)
            runs.append(transferred(arms, scratch, ranking, own, how))
        # Last, since faults of a recipe show at the first step of tuning.
        bare = zero_shot(arms, recipe)
        scores, tests = _test(arms, runs, recipe)
        chosen, best, index = _best(runs)
        prompt = _final(task, best, tests[chosen][index], runs[index].scratch.prompt)
        judged = scores[chosen]
        if ensemble:
            prompt = _together(arms, [run.arm(chosen).prompt for run in runs], recipe)
            judged = _scores_of(prompt)
    except KeyboardInterrupt as stop:
        raise Interrupted(_interrupted(stop, runs, scratch, out)) from stop
    fitted, unfitted = neighbour(task)
    document = comparison_document(
        arms, recipe, how, runs, scores, chosen=chosen, index=index, prompt=prompt, judged=judged, bare=bare,
        neighbour=fitted,
    ) | {
        "ensemble": prompt.card.scores if ensemble else None,
        "prompt": None if out is None else str(out), "seconds": time.monotonic() - began,
    }  # fmt: skip
    document["notes"] += [*notes, *unfitted]
    if out is not None:
        save_prompt(prompt, out)
        document["curves"] = str(_curves(runs, task, bare, out))
        write_record(out.with_suffix(".json"), document)
        remove_parts(out)
    return Adapted(prompt, chosen, runs, document)


def neighbour(task: Task) -> tuple[Classical | None, tuple[str, ...]]:
    """Fits TF-IDF and logistic regression on the same splits; None and a note if that fails, as for open targets."""
    try:
        return classical(task), ()
    except DataError as error:
        return None, (f"No comparison with TF-IDF: {error}",)


def zero_shot(arms: KeptRuns, recipe: Recipe) -> dict[str, float | None]:
    """Returns the scores of the bare model; labels are scored as those of the prompts."""
    found = evaluate(
        arms.model, None, arms.task.validation, arms.task, arms.mode,
        max_input_tokens=recipe.max_input_tokens, label_score=recipe.label_score, on_event=arms.on_event,
        phase="zero-shot: validation",
    )  # fmt: skip
    test = None
    if arms.task.test:
        test = arms.test("zero-shot: test", None, recipe.max_input_tokens, recipe.label_score)["test"]
    return {"validation": found.score, "test": test}


def _curves(runs: Sequence[SeedRuns], task: Task, bare: dict[str, float | None], out: Path) -> Path:
    path = out.with_suffix(".png")
    draw_arms(
        [run.scratch.history for run in runs], [run.curve for run in runs],
        probes=[run.ranking.cost.steps for run in runs], metric=task.metric, task=task.name,
        zero_shot=bare["validation"], path=path,
    )  # fmt: skip
    return path


def _test(
    arms: KeptRuns, runs: Sequence[SeedRuns], recipe: Recipe
) -> tuple[dict[str, Scores], dict[str, list[dict[str, float]]]]:
    """Returns every arm's scores over seeds, and those of `KeptRuns.test`, empty if there is no test split.

    This is the only use of the test split.
    """
    found, tests = {}, {}
    for arm, words in (("prompt_tuning", "from scratch"), ("transfer", "transfer")):
        tuned = [run.arm(arm) for run in runs]
        tests[arm] = [
            arms.test(f"seed {run.seed}: {words}, test", one.prompt, recipe.max_input_tokens)
            if arms.task.test
            else {}
            for run, one in zip(runs, tuned, strict=True)
        ]
        found[arm] = Scores(
            tuple(one.validation for one in tuned), tuple(own["test"] for own in tests[arm] if own)
        )
    return found, tests


def _best(runs: Sequence[SeedRuns]) -> tuple[str, Run, int]:
    """Returns the best run by validation over arms and seeds: arm, run, index of the seed. Ties go to transfer."""
    transferred = [("transfer", pair.transfer, i) for i, pair in enumerate(runs)]
    from_scratch = [("prompt_tuning", pair.scratch, i) for i, pair in enumerate(runs)]
    return max([*transferred, *from_scratch], key=lambda one: one[1].rank)


def _final(task: Task, best: Run, test: Mapping[str, float], probe: SoftPrompt) -> SoftPrompt:
    """Returns the prompt to save, with the key and start of the probe, which compare with those of other prompts."""
    known = {
        "scores": best.prompt.card.scores | by_metric(task, test), "key_step": probe.card.key_step,
    }  # fmt: skip
    return replace(
        best.prompt, key=probe.key, start=probe.start, card=best.prompt.card.model_copy(update=known)
    )


def by_metric(task: Task, test: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Returns the scores of `KeptRuns.test` as a card holds them."""
    return {split: {task.metric: score} for split, score in test.items()}


def _together(arms: KeptRuns, prompts: Sequence[SoftPrompt], recipe: Recipe) -> SoftPrompt:
    """Returns the prompts of all seeds as an ensemble, with its own scores on the card."""
    named = [
        replace(
            prompt,
            card=prompt.card.model_copy(update={"name": f"{prompt.card.name}-seed-{prompt.card.seed}"}),
        )
        for prompt in prompts
    ]
    joint, metric = ensemble_of(named, arms.task.name), arms.task.metric
    found = evaluate(
        arms.model, joint, arms.task.validation, arms.task, arms.mode,
        max_input_tokens=recipe.max_input_tokens, on_event=arms.on_event, phase="ensemble: validation",
    )  # fmt: skip
    scores = {"validation": {metric: found.score}}
    if arms.task.test:
        scores |= by_metric(arms.task, arms.test("ensemble: test", joint, recipe.max_input_tokens))
    return replace(joint, card=joint.card.model_copy(update={"scores": scores}))


def _scores_of(prompt: SoftPrompt) -> Scores:
    """Returns the scores on a card as those of one seed."""
    own = prompt.card.scores
    validation, test = (
        tuple(own[split].values()) if split in own else () for split in ("validation", "test")
    )
    return Scores(validation, test)


def _interrupted(stop: BaseException, runs: Sequence[SeedRuns], scratch: Run | None, out: Path | None) -> str:
    """Saves the best prompt so far and returns a message about the progress."""
    found = [run for pair in runs for run in (pair.scratch, pair.transfer)] + ([scratch] if scratch else [])
    kept = f"{str(stop) or 'Interrupted.'}{finished_parts(out)}"
    if out is not None and found:
        place = save_unfinished(max(found, key=lambda run: run.rank).prompt, out)
        kept += f" The best prompt so far is at {place}."
    return kept
