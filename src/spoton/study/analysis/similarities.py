"""Similarity of a study's tasks: similarities of their keys, averaged over pairs of seeds, and their clusters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from spoton.errors import DataError, PromptError
from spoton.study.results.score_arrays import Array, ScoreArrays, known
from spoton.study.results.study_results import Matrix, StudyResults, TransferRun
from spoton.transfer.similarity import Similarity, similarity

Measure = Literal["average_tokens", "per_token_average", "maximum_token", "displacement", "untuned_loss"]
"""Measures that rank sources for a target: similarity of keys (`Metric`); `displacement`, the cosine of the mean tokens
of keys minus their starts (arXiv 2408.01119); `untuned_loss`, how low the source's loss is on the target's validation
rows before tuning."""

_Key = tuple[str, int]
_REMEMBERED = 0.1


@dataclass(frozen=True, eq=False)
class TaskSimilarities:
    """A similarity matrix of tasks.

    Attributes:
        metric: The measure.
        tasks: K names, sources first.
        values: `[K, K]` mean over all pairs of seeds (SPoT, section 3.2), also on the diagonal.
        order: Indices of the tasks with similar ones together.
        tree: The clusters as scipy's linkage matrix `[K - 1, 4]`; None for fewer than three tasks.
        same_seed: Mean similarity of different tasks with the same seed.
        other_seed: Mean similarity of different tasks with different seeds. Where this is much lower, keys remember
            their common start.
    """

    metric: Measure
    tasks: tuple[str, ...]
    values: Array
    order: tuple[int, ...]
    tree: Array | None
    same_seed: float
    other_seed: float

    @property
    def remember_start(self) -> bool | None:
        """Whether keys of one seed are more similar than those of different seeds by more than 0.1; None: not known."""
        difference = self.same_seed - self.other_seed
        return None if math.isnan(difference) else difference > _REMEMBERED

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, with rows in the order of the clusters."""
        return {
            "tasks": [self.tasks[place] for place in self.order],
            "matrix": [[known(self.values[a, b]) for b in self.order] for a in self.order],
            "mean_of_one_seed": known(self.same_seed), "mean_of_different_seeds": known(self.other_seed),
        }  # fmt: skip


class KeySimilarities:
    """Similarities of all keys of a study, or of their displacements, by one metric; computes each pair once."""

    def __init__(self, results: StudyResults, measure: Similarity | Literal["displacement"]) -> None:
        self.measure: Measure = measure
        self._metric: Similarity = "average_tokens" if measure == "displacement" else measure
        self._tasks = dict.fromkeys((*results.sources, *results.targets))
        sources, targets = results.source_keys, results.target_keys
        if measure == "displacement":
            sources, targets = results.source_displacements, results.target_displacements
        self._known: dict[tuple[int, int], float] = {}
        self._tensors: dict[int, torch.Tensor] = {}
        self._of_source = _by_task(sources)
        self._of_target = _by_task(targets)

    def between(self, a: Matrix, b: Matrix) -> float:
        """Returns the similarity of two keys.

        Raises:
            DataError: They differ in width, so they belong to different models.
        """
        pair = (id(a), id(b)) if id(a) < id(b) else (id(b), id(a))
        if pair not in self._known:
            try:
                self._known[pair] = similarity(self._tensor(a), self._tensor(b), self._metric)
            except PromptError as error:
                raise DataError(f"Keys of the study cannot be compared. {error}") from error
        return self._known[pair]

    def to_target(self, source: str, seed: int | None, target: str) -> float:
        """Returns the similarity of a source's prompt of a seed to a target, over the target's seeds; NaN without keys.

        A source without a prompt of that seed counts with all its prompts.
        """
        prompts = self._of_source.get(source, {})
        if seed is not None and seed in prompts:
            prompts = {seed: prompts[seed]}
        return self._mean(prompts, self._of_target.get(target, {}))

    def by_seed(self, grid: ScoreArrays) -> Array:
        """Returns `[S, T, N]` similarities of keys of the same seed, or of the tasks where such a key is missing.

        A source with a single key, such as a library's prompt, uses it for every seed.
        """
        values = np.full(grid.transfer.shape, np.nan)
        for s, t in grid.pairs():
            sources = self._of_source.get(grid.sources[s], {})
            targets = self._of_target.get(grid.targets[t], {})
            overall = self._mean(sources, targets)
            if len(sources) == 1:
                sources = dict.fromkeys(targets, *sources.values())
            for n, seed in enumerate(grid.seeds):
                both = seed is not None and seed in sources and seed in targets
                values[s, t, n] = self.between(sources[seed], targets[seed]) if both else overall  # type: ignore[index]
        return values

    def matrix(self) -> TaskSimilarities:
        """Returns all similarities of tasks, ordered by hierarchical clustering (average linkage of 1 - similarity)."""
        keys = {
            task: {**self._of_target.get(task, {}), **self._of_source.get(task, {})}
            for task in self._tasks
            if task in self._of_source or task in self._of_target
        }
        tasks = tuple(keys)
        values = np.array([[self._mean(keys[a], keys[b]) for b in tasks] for a in tasks])
        values = values.reshape(len(tasks), len(tasks))
        sums = {True: [0.0, 0], False: [0.0, 0]}
        for i, a in enumerate(tasks):
            for b in tasks[:i]:
                for one, p in keys[a].items():
                    for other, q in keys[b].items():
                        sums[one == other][0] += self.between(p, q)
                        sums[one == other][1] += 1
        same, different = (
            sums[kind][0] / sums[kind][1] if sums[kind][1] else math.nan for kind in (True, False)
        )
        tree = cluster_tree(values)
        return TaskSimilarities(
            self.measure, tasks, values, leaf_order(tree, len(tasks)), tree, same, different
        )

    def _tensor(self, key: Matrix) -> torch.Tensor:
        if id(key) not in self._tensors:
            self._tensors[id(key)] = torch.tensor(key, dtype=torch.float64)
        return self._tensors[id(key)]

    def _mean(self, a: Mapping[int, Matrix], b: Mapping[int, Matrix]) -> float:
        found = [self.between(p, q) for p in a.values() for q in b.values()]
        return float(np.mean(found)) if found else math.nan


def untuned_losses(runs: Mapping[tuple[str, str, int], TransferRun], grid: ScoreArrays) -> Array:
    """Returns `[S, T, N]`: negative validation loss of each source on each target before any step; NaN if unknown."""
    first = {place: run.looks[0] for place, run in runs.items() if run.looks}
    return grid.laid_out(
        {
            place: -look["validation_loss"]
            for place, look in first.items()
            if look.get("step") == 0 and "validation_loss" in look
        }
    )


def cluster_tree(values: Array) -> Array | None:
    """Clusters tasks by average linkage of 1 - similarity, with an optimal order of leaves.

    Only pairs of different tasks are used.

    Args:
        values: `[K, K]`, symmetric.

    Returns:
        scipy's linkage matrix `[K - 1, 4]`; None for fewer than three tasks.
    """
    if len(values) < 3:
        return None
    distance = np.clip(1 - (values + values.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    tree: Array = hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return tree


def leaf_order(tree: Array | None, tasks: int) -> tuple[int, ...]:
    """Returns indices of tasks in the order of a tree's leaves, so that similar ones are together."""
    if tree is None:
        return tuple(range(tasks))
    return tuple(int(leaf) for leaf in hierarchy.leaves_list(tree))


def _by_task(keys: Mapping[_Key, Matrix]) -> dict[str, dict[int, Matrix]]:
    found: dict[str, dict[int, Matrix]] = {}
    for (task, seed), key in keys.items():
        found.setdefault(task, {})[seed] = key
    return found
