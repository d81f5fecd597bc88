"""The two arms of one seed: tuning from scratch, and transfer with the steps that its ranking leaves of that budget.

This file chooses sources and starts, tunes them and divides the budget. Means over seeds, the test split and the
document are in `adapt.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from spoton.arguments import is_count, shown
from spoton.errors import RecipeError
from spoton.transfer.combining.halving import halving_within
from spoton.transfer.combining.methods import SEVERAL, Method, starts
from spoton.transfer.combining.mixture import RowsOf, mixture
from spoton.transfer.kept_runs import KeptRuns, Run
from spoton.transfer.ranking.similarity import retrieve
from spoton.transfer.ranking.trial import trial
from spoton.transfer.similarity import Similarity
from spoton.transfer.sources import Cost, Ranking, SourcePrompt
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.recipe import Recipe

Rank = Literal["similarity", "displacement", "trial"]
RANKS: tuple[Rank, ...] = get_args(Rank)

_TRIAL_SHARE = 2  # a trial may cost at most the budget divided by this


@dataclass(frozen=True)
class TransferPlan:
    """How sources are ranked and used.

    Attributes:
        method: How the retrieved prompts are combined.
        rank: How sources are ranked.
        k: Number of sources to retrieve.
        metric: The similarity to rank by; a trial takes only the default, which it ignores.
        rows_of: Returns the rows of a source, for `mixture`; None: of tasks of the catalog.
    """

    method: Method = "best-of-top-k"
    rank: Rank = "similarity"
    k: int = 1
    metric: Similarity = "average_tokens"
    rows_of: RowsOf | None = None

    def require_budget(self, recipe: Recipe, n_sources: int, seeds: int) -> None:
        """Refuses what cannot be carried out, before anything runs.

        Raises:
            RecipeError: The message says what was found and what is possible.
        """
        if self.rank not in RANKS:
            raise RecipeError(f"Unknown ranking {self.rank!r}; there is: {', '.join(RANKS)}.")
        self.require_counts(seeds)
        refuse_similarity(self.rank, self.metric)
        if self.method in ("learned-mix", "multiplicative") and recipe.reparameterization != "none":
            raise RecipeError(
                f"--method {self.method} decides itself what is tuned in place of the prompt; found "
                f"--reparameterization {recipe.reparameterization}. Leave one of them out."
            )
        if self.rank == "trial":  # what it leaves is known before anything is tuned
            self.require_left(recipe, 0, 1)
        else:
            self.require_left(
                recipe, recipe.key_step, min(self.k, n_sources) if self.method in SEVERAL else 1
            )

    def require_counts(self, seeds: int) -> None:
        """Refuses a `k` or a number of seeds that is not a count.

        Raises:
            RecipeError: Names both.
        """
        if not (is_count(self.k) and is_count(seeds)):
            raise RecipeError(
                "k and seeds must be at least 1, and whole numbers; found "
                f"k = {shown(self.k)}, seeds = {shown(seeds)}."
            )

    def require_left(self, recipe: Recipe, spent: int, candidates: int) -> None:
        """Refuses a budget of which the ranking leaves too little.

        Args:
            recipe: The recipe; its steps are the budget.
            spent: Steps that the ranking costs.
            candidates: Number of starts to tune.

        Raises:
            RecipeError: The steps that are left do not suffice.
        """
        left = recipe.steps - spent
        if self.method == "halving" and candidates > 1:
            halving_within(left, candidates, recipe)
        fewest = 2 if self.method == "mixture" else candidates  # half of them tune on the mixture
        if left < fewest:
            raise RecipeError(
                f"{recipe.steps} steps leave nothing to tune {candidates} candidate(s) with after a ranking of {spent} "
                f"steps. Raise --steps or --minutes, or lower {'' if self.rank == 'trial' else '--key-step or '}--k."
            )


def refuse_similarity(rank: str, metric: Similarity) -> None:
    """Refuses a similarity beside a trial, which compares no keys.

    Raises:
        RecipeError: The similarity is not the default, and a trial ranks.
    """
    if rank == "trial" and metric != "average_tokens":
        raise RecipeError(
            f"--similarity {metric} says how keys are compared, and a trial compares none. Leave it out, or rank by "
            "similarity or displacement."
        )


@dataclass(frozen=True)
class SeedRuns:
    """The results of one seed.

    Attributes:
        seed: The seed.
        scratch: Prompt tuning from scratch.
        transfer: The best candidate by validation.
        candidates: How many candidates were tuned.
        taken: Steps of the transfer arm, including those that its ranking costs.
        ranking: The sources, best first.
        curve: The history of `transfer` with steps of the whole arm: those of a mixture and of the other candidates
            count, those of the ranking do not.
    """

    seed: int
    scratch: Run
    transfer: Run
    candidates: int
    taken: int
    ranking: Ranking
    curve: list[dict[str, float]]

    def arm(self, name: str) -> Run:
        """Returns the run of an arm: `transfer` or `prompt_tuning`."""
        return self.transfer if name == "transfer" else self.scratch

    def steps(self) -> dict[str, int]:
        """Returns the optimizer steps of each arm."""
        probe, steps = self.ranking.cost.steps, self.scratch.prompt.card.recipe["steps"]
        assert isinstance(steps, int)
        return {
            "prompt_tuning": steps, "transfer": self.taken, "probe": probe,
            "candidates": self.candidates, "each_candidate": (self.taken - probe) // self.candidates,
        }  # fmt: skip


def tried_first(
    runs: KeptRuns, sources: Sequence[SourcePrompt], recipe: Recipe, how: TransferPlan
) -> Ranking | None:
    """Returns the ranking by a trial, which needs no tuning, so that a budget is refused before any; else None.

    Raises:
        RecipeError: A trial costs too much, or leaves too few steps.
        LibraryError: No source can be used.
    """
    if how.rank != "trial":
        return None
    ranking = ranked(runs, None, sources, recipe, how)
    several = how.method in SEVERAL and any(one.is_source for one in ranking)
    how.require_left(recipe, ranking.cost.steps, len(ranking) if several else 1)
    return ranking


def transferred(
    runs: KeptRuns, scratch: Run, ranking: Ranking, recipe: Recipe, how: TransferPlan
) -> SeedRuns:
    """Makes starts from the best sources and tunes them; keeps the best run by validation.

    Args:
        runs: The kept runs of the target.
        scratch: The run from scratch of the same seed.
        ranking: The sources, from `tried_first` or `ranked`.
        recipe: The recipe; its steps are the budget.
        how: How to use the sources.

    Raises:
        RecipeError: The budget is too small.
        LibraryError: No source can be used.
    """
    spent = ranking.cost.steps
    left, words = recipe.steps - spent, f"seed {recipe.seed}: from"
    has_source = any(one.is_source for one in ranking)
    if how.method == "mixture" and has_source:
        half = left // 2
        start = mixture(runs, ranking, recipe.changed(steps=half), how.rows_of)
        best = runs.tuned(
            f"{words} {start.name}", recipe.changed(steps=left - half), start.value, start.parents
        )
        curve = _counted(best, lambda step: half + step)
        return SeedRuns(recipe.seed, scratch, best, 1, recipe.steps, ranking, curve)
    # If a trial leaves only the target's own text, there is nothing to combine.
    method = how.method if has_source else "best-of-top-k"
    candidates = starts(
        ranking, method, recipe.length, lambda: starting_prompt(runs.model, runs.task, recipe)[0]
    )
    if method == "halving" and len(candidates) > 1:
        longest, halving = halving_within(left, len(candidates), recipe)
        best = runs.halved(
            f"{words} one of the sources,",
            longest,
            [(start.value, start.parents) for start in candidates],
            halving,
        )
        taken = spent + halving.taken(len(candidates), longest.steps)
        curve = _counted(best, lambda step: halving.taken(len(candidates), step))
        return SeedRuns(recipe.seed, scratch, best, len(candidates), taken, ranking, curve)
    how.require_left(recipe, spent, len(candidates))
    each = left // len(candidates)
    tuned = [
        runs.tuned(f"{words} {one.name}", recipe.changed(steps=each), one.value, one.parents, one.tuned_as)
        for one in candidates
    ]
    best = max(tuned, key=lambda run: run.rank)
    curve = _counted(best, lambda step: len(tuned) * step)
    return SeedRuns(recipe.seed, scratch, best, len(tuned), spent + len(tuned) * each, ranking, curve)


def _counted(run: Run, taken: Callable[[int], int]) -> list[dict[str, float]]:
    """Returns the history of a run with the steps that its arm has taken by each of its own."""
    return [entry | {"step": float(taken(int(entry["step"])))} for entry in run.history]


def ranked(
    runs: KeptRuns, scratch: Run | None, sources: Sequence[SourcePrompt], recipe: Recipe, how: TransferPlan
) -> Ranking:
    """Ranks sources.

    Args:
        runs: The kept runs of the target.
        scratch: The run with the target's key; a trial does not need it.
        sources: The sources to rank.
        recipe: The recipe of the target.
        how: The ranking, and how many sources to retrieve.

    Raises:
        RecipeError: There is no key, or a trial costs too much.
        LibraryError: No source can be used.
    """
    if how.rank == "trial":
        return trial(
            runs.model, runs.task, sources, how.k, recipe, length=recipe.length, folder=runs.folder,
            limit=recipe.steps // _TRIAL_SHARE, on_event=runs.on_event, phase=f"seed {recipe.seed}: trial of sources",
        )  # fmt: skip
    if scratch is None or scratch.prompt.key is None:
        told = "" if scratch is None else scratch.message
        raise RecipeError(f"Tuning from scratch ended before its probe of {recipe.key_step} steps: {told}")
    start = scratch.prompt.start if how.rank == "displacement" else None
    found = retrieve(scratch.prompt.key, sources, how.k, how.metric, start=start)
    return Ranking(found, found.damaged, Cost(steps=recipe.key_step), found.notes)
