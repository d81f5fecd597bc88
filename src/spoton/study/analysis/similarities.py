"""How alike the tasks of a study are: similarities of their keys, averaged over pairs of seeds, and their clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from spoton.errors import DataError, PromptError
from spoton.study.results.scores import Array, ScoreArrays, known
from spoton.study.results.study_results import Matrix, Results
from spoton.transfer.similarity import Metric, similarity

_Key = tuple[str, int]


@dataclass(frozen=True, eq=False)
class TaskSimilarities:
    """A similarity matrix of tasks.

    Attributes:
        metric: Which similarity.
        tasks: K names, sources first.
        values: ``[K, K]`` mean over all pairs of seeds (SPoT, section 3.2); a task with itself over pairs of different
            seeds, or over the same one where there is no other.
        order: The tasks' places when similar ones stand together.
        same_seed: Mean similarity of different tasks of one seed.
        other_seed: Mean similarity of different tasks of different seeds. Where this is much lower, keys remember the
            start they had in common.
    """

    metric: Metric
    tasks: tuple[str, ...]
    values: Array
    order: tuple[int, ...]
    same_seed: float
    other_seed: float

    def to_json(self) -> dict[str, Any]:
        """As plain values, rows in the order of the clusters."""
        return {
            "tasks": [self.tasks[place] for place in self.order],
            "matrix": [[known(self.values[a, b]) for b in self.order] for a in self.order],
            "mean_of_one_seed": known(self.same_seed), "mean_of_different_seeds": known(self.other_seed),
        }  # fmt: skip


class KeySimilarities:
    """Similarities of all keys of a study by one metric; each pair is computed once."""

    def __init__(self, results: Results, metric: Metric) -> None:
        self.metric = metric
        self.results = results
        self._known: dict[tuple[int, int], float] = {}

    def between(self, a: Matrix, b: Matrix) -> float:
        """Similarity of two keys.

        Raises:
            DataError: They differ in width, so they are of different models.
        """
        pair = (id(a), id(b)) if id(a) < id(b) else (id(b), id(a))
        if pair not in self._known:
            try:
                self._known[pair] = similarity(torch.tensor(a), torch.tensor(b), self.metric)
            except PromptError as error:
                raise DataError(f"Keys of the study cannot be compared. {error}") from error
        return self._known[pair]

    def to_target(self, source: _Key, target: str) -> float:
        """Similarity of a source prompt to a target, averaged over the target's seeds; NaN without keys."""
        key = self.results.source_keys.get(source)
        found = [] if key is None else [self.between(key, other) for other in self._seeds(target)]
        return float(np.mean(found)) if found else np.nan

    def tasks(self, source: str, target: str) -> float:
        """Similarity of a source task to a target task, averaged over all pairs of seeds; NaN without keys."""
        found = [self.to_target(key, target) for key in self.results.source_keys if key[0] == source]
        return float(np.mean(found)) if found else np.nan

    def by_seed(self, grid: ScoreArrays) -> Array:
        """``[S, T, N]``: similarity of source and target key of one seed; of the tasks where a key of it is missing."""
        values = np.full(grid.transfer.shape, np.nan)
        for s, source in enumerate(grid.sources):
            for t, target in enumerate(grid.targets):
                for n, seed in enumerate(grid.seeds):
                    a = self.results.source_keys.get((source, seed)) if seed is not None else None
                    b = self.results.target_keys.get((target, seed)) if seed is not None else None
                    both = a is not None and b is not None
                    values[s, t, n] = self.between(a, b) if both else self.tasks(source, target)  # type: ignore[arg-type]
        return values

    def matrix(self) -> TaskSimilarities:
        """All tasks against all, and their order by hierarchical clustering (average linkage of 1 - similarity)."""
        keys: dict[str, Mapping[int, Matrix]] = {}
        for task in dict.fromkeys((*self.results.sources, *self.results.targets)):
            found = {seed: key for (name, seed), key in self.results.target_keys.items() if name == task}
            found |= {seed: key for (name, seed), key in self.results.source_keys.items() if name == task}
            if found:
                keys[task] = found
        tasks = tuple(keys)
        values = np.array([[self._mean(keys[a], keys[b], a == b) for b in tasks] for a in tasks]).reshape(
            len(tasks), len(tasks)
        )
        pairs = [
            (one == other, self.between(p, q))
            for i, a in enumerate(tasks)
            for b in tasks[:i]
            for one, p in keys[a].items()
            for other, q in keys[b].items()
        ]
        same, different = (
            [value for is_same, value in pairs if is_same is wanted] for wanted in (True, False)
        )
        return TaskSimilarities(
            self.metric, tasks, values, cluster_order(values),
            float(np.mean(same)) if same else np.nan, float(np.mean(different)) if different else np.nan,
        )  # fmt: skip

    def _seeds(self, target: str) -> list[Matrix]:
        return [key for (task, _), key in self.results.target_keys.items() if task == target]

    def _mean(self, a: Mapping[int, Matrix], b: Mapping[int, Matrix], itself: bool) -> float:
        only_other = itself and len(a) > 1
        return float(
            np.mean(
                [
                    self.between(p, q)
                    for i, p in a.items()
                    for j, q in b.items()
                    if not (only_other and i == j)
                ]
            )
        )


def cluster_order(values: Array) -> tuple[int, ...]:
    """Places of tasks such that similar ones stand together.

    Average linkage of 1 - similarity, leaves ordered so that neighbours are as similar as they can be. A similarity
    that is not 1 for a task with itself does not matter: only pairs of different tasks are read.

    Args:
        values: ``[K, K]``, symmetric.
    """
    if len(values) < 3:
        return tuple(range(len(values)))
    distance = np.clip(1 - (values + values.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    tree = hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return tuple(int(leaf) for leaf in hierarchy.leaves_list(tree))
