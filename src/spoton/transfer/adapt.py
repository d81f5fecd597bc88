"""Adapting a frozen model to a task by prompt transfer: probe, retrieve, transfer, tune, compare, test once.

The comparison is at equal budget. Tuning from scratch takes ``recipe.steps`` steps. Transfer takes ``recipe.key_step``
of them for its probe and shares the rest among its candidates. The probe is nothing else than the first steps of
tuning from scratch, so where both arms run, its key is read off there and the same steps are counted for both.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spoton.errors import DataError, Interrupted, RecipeError
from spoton.evaluation.baseline import Classical, classical
from spoton.evaluation.score import Mode, default_mode, evaluate
from spoton.events import OnEvent, silent
from spoton.locks import locked
from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.plots import draw_arms
from spoton.prompts.library import Entry, PromptLibrary
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.task import Task
from spoton.transfer.combine import Method, starts
from spoton.transfer.comparison import Scores, verdict, worth
from spoton.transfer.kept_runs import KeptRuns, Run
from spoton.transfer.rank_sources import Retrieved, retrieve, sources_for
from spoton.transfer.similarity import Metric
from spoton.transfer.speed import speed
from spoton.tuning.outputs import remove_unfinished, require_free, save_unfinished
from spoton.tuning.recipe import PRESETS, Recipe
from spoton.tuning.record import require_place, save_prompt, versions, write_record

# Every further candidate shortens the tuning of all, and the budget is small; larger k is not measured yet.
DEFAULT_K = 1


@dataclass(frozen=True)
class SeedRuns:
    """What one seed gave.

    Attributes:
        seed: The seed.
        scratch: Prompt tuning from scratch.
        transfer: The best candidate by validation.
        candidates: How many candidates were tuned.
        retrieved: The sources, most similar first.
        damaged: Name to reason of sources that turned out damaged.
    """

    seed: int
    scratch: Run
    transfer: Run
    candidates: int
    retrieved: list[Retrieved]
    damaged: dict[str, str]


@dataclass(frozen=True)
class Adapted:
    """The result of `adapt`.

    Attributes:
        prompt: The best prompt by validation, over arms and seeds, with its test score on its card.
        chosen: The arm it comes from: ``transfer`` or ``prompt_tuning``.
        runs: One entry a seed.
        document: All of it as plain values: what ``--json`` prints and the record holds.
    """

    prompt: SoftPrompt
    chosen: str
    runs: list[SeedRuns]
    document: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return self.document


def adapt(
    model: FrozenModel,
    task: Task,
    libraries: Sequence[PromptLibrary],
    recipe: Recipe | None = None,
    *,
    method: Method = "best-of-top-k",
    k: int = DEFAULT_K,
    metric: Metric = "average_tokens",
    seeds: int = 1,
    evaluation: Mode | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    on_event: OnEvent = silent,
) -> Adapted:
    """Adapts ``model`` to ``task`` with the most transferable prompts of ``libraries`` (SPoT, section 3).

    Args:
        model: The frozen model.
        task: The target task; its test split is touched once, at the end.
        libraries: Where sources are retrieved from.
        recipe: How target prompts are tuned; its steps are the budget of either arm. None: the default.
        method: What is made of the retrieved prompts.
        k: How many are retrieved.
        metric: By which similarity.
        seeds: How many seeds each arm is run with, from ``recipe.seed`` on.
        evaluation: ``rank`` or ``generate``; None: by the task.
        out: Where to save the prompt, with its record (``.json``) and learning curves (``.png``) beside it. Finished
            parts are kept in a ``.work`` folder beside it until the end, so a killed call resumes by itself.
        overwrite: Whether a prompt at ``out`` is replaced, once the new one is finished.
        on_event: Watches the progress.

    Raises:
        RecipeError: The budget is too small for the probe and the candidates.
        LibraryError: There is no source; says how many prompts were left out, and why.
        SpotonError: `out` is no name for a prompt, cannot be written, exists, or is being written by another process;
            all of it is found out first.
        Interrupted: Ctrl-C. The best prompt so far is saved at ``out`` and the message says so.

    Examples:
        >>> adapted = adapt(model, task, [starter_library()], out=Path("reviews.safetensors"))  # doctest: +SKIP
        >>> adapted.to_json()["verdict"]  # doctest: +SKIP
        'test accuracy 70.2 with transfer, 61.0 from scratch (+9.2): ...'
    """
    recipe = recipe or PRESETS["decoder"]
    mode = evaluation or default_mode(task)
    sources = sources_for(
        libraries, model.fingerprints, task=task.name, data_hash=task.data_hash(), source=task.source
    )
    _check_budget(recipe, method, k, len(sources), seeds)
    if out is None:
        return _adapted(model, task, sources, recipe, method, k, metric, seeds, mode, None, on_event)
    require_place(out)
    with locked(out):
        require_free(out, overwrite=overwrite, resume=out.with_suffix(".work").is_dir())
        return _adapted(model, task, sources, recipe, method, k, metric, seeds, mode, out, on_event)


def _adapted(
    model: FrozenModel,
    task: Task,
    sources: Sequence[tuple[PromptLibrary, Entry]],
    recipe: Recipe,
    method: Method,
    k: int,
    metric: Metric,
    seeds: int,
    mode: Mode,
    out: Path | None,
    on_event: OnEvent,
) -> Adapted:
    """`adapt` once everything that it was given has been checked."""
    began = time.monotonic()
    arms = KeptRuns(model, task, mode, None if out is None else out.with_suffix(".work"), on_event)
    runs: list[SeedRuns] = []
    scratch: Run | None = None
    try:
        for seed in range(recipe.seed, recipe.seed + seeds):
            scratch = arms.tuned(f"seed {seed}: from scratch", recipe.changed(seed=seed))
            runs.append(_transferred(arms, scratch, sources, recipe.changed(seed=seed), method, k, metric))
        # Last, since what is wrong with a recipe shows at the first step of tuning.
        zero_shot = _zero_shot(arms, recipe)
        scores = _test(arms, runs, recipe)
    except KeyboardInterrupt as stop:
        raise Interrupted(_interrupted(stop, runs, scratch, out)) from stop
    chosen, best, index = _best(runs)
    prompt = _final(task, best, scores[chosen].test, index, runs[index].scratch.prompt)
    saved = speed(
        [run.scratch.history for run in runs], [run.transfer.history for run in runs], recipe.key_step
    )
    neighbour = _classical(task)
    damaged = {name: why for run in runs for name, why in run.damaged.items()}
    arms_scores = {"zero_shot": zero_shot} | {arm: found.means() for arm, found in scores.items()}
    if neighbour is not None:
        arms_scores["classical"] = {split: neighbour.score(split) for split in ("validation", "test")}
    document = {
        "task": task.name, "form": task.form, "model": model.name, "model_fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."), "metric": task.metric,
        "evaluation": mode, "splits": task.splits(),
        "scores": arms_scores, "classical": None if neighbour is None else neighbour.to_json(),
        "seeds": {"n": seeds} | {arm: found.seeds() for arm, found in scores.items()},
        "verdict": verdict(scores["prompt_tuning"], scores["transfer"], task.metric),
        "worth": None if neighbour is None else worth(scores[chosen], neighbour, task.metric),
        "speed": None if saved is None else saved.to_json() | {"sentence": saved.sentence()},
        "calibration": None if prompt.card.calibration is None else prompt.card.calibration.model_dump(),
        "steps": _steps(recipe, runs), "method": method, "similarity": metric,
        "retrieved": [one.to_json() for one in runs[index].retrieved],
        "retrieved_by_seed": [[one.to_json() for one in run.retrieved] for run in runs],
        "truncated": runs[0].scratch.truncated,
        "chosen": chosen, "prompt": None if out is None else str(out),
        "damaged": damaged,
        "notes": [*task.notes, *(run.message for pair in runs for run in (pair.scratch, pair.transfer) if run.message)],
        "seconds": time.monotonic() - began, "recipe": recipe.model_dump(), "data_hash": task.data_hash(),
        "versions": versions(), "engine": asdict(choice) if (choice := engine_for(model).choice) else None,
    }  # fmt: skip
    if out is not None:
        save_prompt(prompt, out)
        draw_arms(
            [run.scratch.history for run in runs], [run.transfer.history for run in runs],
            probe=recipe.key_step, metric=task.metric, task=task.name, zero_shot=zero_shot["validation"],
            path=out.with_suffix(".png"),
        )  # fmt: skip
        document["curves"] = str(out.with_suffix(".png"))
        write_record(out.with_suffix(".json"), document)
        shutil.rmtree(arms.folder or "", ignore_errors=True)
        remove_unfinished(out)
    return Adapted(prompt, chosen, runs, document)


def _check_budget(recipe: Recipe, method: Method, k: int, n_sources: int, seeds: int) -> None:
    if k < 1 or seeds < 1:
        raise RecipeError(f"k and seeds must be at least 1; found k = {k}, seeds = {seeds}.")
    candidates = min(k, n_sources) if method == "best-of-top-k" else 1
    if recipe.steps - recipe.key_step < max(1, candidates):
        raise RecipeError(
            f"{recipe.steps} steps leave nothing to tune {candidates} candidate(s) with after a probe of "
            f"{recipe.key_step} steps. Raise --steps, or lower --key-step or --k."
        )


def _classical(task: Task) -> Classical | None:
    """TF-IDF and logistic regression on the same splits; None where they cannot be fitted, as for open targets."""
    try:
        return classical(task)
    except DataError:
        return None


def _zero_shot(arms: KeptRuns, recipe: Recipe) -> dict[str, float | None]:
    """Scores of the bare model."""
    found = evaluate(
        arms.model, None, arms.task.validation, arms.task, arms.mode,
        max_input_tokens=recipe.max_input_tokens, on_event=arms.on_event, phase="zero-shot: validation",
    )  # fmt: skip
    test = arms.test("zero-shot: test", None, recipe.max_input_tokens) if arms.task.test else None
    return {"validation": found.score, "test": test}


def _transferred(
    arms: KeptRuns,
    scratch: Run,
    sources: Sequence[tuple[PromptLibrary, Entry]],
    recipe: Recipe,
    method: Method,
    k: int,
    metric: Metric,
) -> SeedRuns:
    """Retrieves with the key of the run from scratch, tunes every candidate and keeps the best by validation."""
    if scratch.prompt.key is None:
        raise RecipeError(
            f"Tuning from scratch ended before its probe of {recipe.key_step} steps: {scratch.message}"
        )
    found = retrieve(scratch.prompt.key, sources, k, metric)
    candidates = starts(found, method, recipe.length)
    share = recipe.changed(steps=(recipe.steps - recipe.key_step) // len(candidates))
    tuned = [
        arms.tuned(f"seed {recipe.seed}: from {start.name}", share, start.value, start.parents)
        for start in candidates
    ]
    return SeedRuns(
        recipe.seed, scratch, max(tuned, key=lambda run: run.rank), len(tuned), found, found.damaged
    )


def _test(arms: KeptRuns, runs: Sequence[SeedRuns], recipe: Recipe) -> dict[str, Scores]:
    """Every arm's scores over seeds; the only look at the test split."""
    found = {}
    for arm, words in (("prompt_tuning", "from scratch"), ("transfer", "transfer")):
        tuned = [run.scratch if arm == "prompt_tuning" else run.transfer for run in runs]
        test = [
            arms.test(f"seed {run.seed}: {words}, test", one.prompt, recipe.max_input_tokens)
            for run, one in zip(runs, tuned, strict=True)
            if arms.task.test
        ]
        found[arm] = Scores(tuple(one.validation for one in tuned), tuple(test))
    return found


def _best(runs: Sequence[SeedRuns]) -> tuple[str, Run, int]:
    """The best run by validation over arms and seeds: arm, run, index of the seed. Ties go to transfer (the first)."""
    transferred = [("transfer", pair.transfer, i) for i, pair in enumerate(runs)]
    from_scratch = [("prompt_tuning", pair.scratch, i) for i, pair in enumerate(runs)]
    return max([*transferred, *from_scratch], key=lambda one: one[1].rank)


def _final(task: Task, best: Run, test: Sequence[float], index: int, probe: SoftPrompt) -> SoftPrompt:
    """The prompt to save, with the key and start of the probe, which keys of other prompts are comparable with."""
    scores = dict(best.prompt.card.scores)
    if test:
        scores["test"] = {task.metric: test[index]}
    return replace(
        best.prompt,
        key=probe.key,
        start=probe.start,
        card=best.prompt.card.model_copy(update={"scores": scores}),
    )


def _steps(recipe: Recipe, runs: Sequence[SeedRuns]) -> dict[str, int]:
    """Optimizer steps of each arm, for one seed."""
    candidates = runs[0].candidates
    each = (recipe.steps - recipe.key_step) // candidates
    return {
        "prompt_tuning": recipe.steps, "transfer": recipe.key_step + candidates * each,
        "probe": recipe.key_step, "candidates": candidates, "each_candidate": each,
    }  # fmt: skip


def _interrupted(stop: BaseException, runs: Sequence[SeedRuns], scratch: Run | None, out: Path | None) -> str:
    """Saves the best prompt so far and says what was reached."""
    found = [run for pair in runs for run in (pair.scratch, pair.transfer)] + ([scratch] if scratch else [])
    told = str(stop) or "Interrupted."
    if out is None:
        return told
    kept = (
        f"{told} Finished parts are kept in {out.with_suffix('.work')}; the same command goes on from there."
    )
    if found:
        place = save_unfinished(max(found, key=lambda run: run.rank).prompt, out)
        kept += f" The best prompt so far is at {place}."
    return kept
