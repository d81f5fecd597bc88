"""Similarity matrices of tasks, over pairs of seeds, and their clusters."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from spoton.errors import DataError
from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.similarities import KeySimilarities, cluster_tree, leaf_order, untuned_losses
from spoton.study.results.score_arrays import ScoreArrays
from spoton.study.results.study_results import Matrix, Score, StudyResults, TransferRun
from spoton.transfer.similarity import SIMILARITIES, Similarity, similarity
from tests.study.made import made


def key(*degrees: float) -> Matrix:
    """Tokens of a width of two, by their angles."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def results(source_keys: dict[Any, Matrix], target_keys: dict[Any, Matrix]) -> StudyResults:
    sources = tuple(dict.fromkeys(task for task, _ in source_keys))
    targets = tuple(dict.fromkeys(task for task, _ in target_keys))
    return StudyResults(sources, targets, (), source_keys=source_keys, target_keys=target_keys)


def test_tasks_are_compared_over_all_pairs_of_seeds() -> None:
    found = results({("a", 0): key(0), ("a", 1): key(60)}, {("x", 0): key(0), ("x", 5): key(90)})
    similarities = KeySimilarities(found, "average_tokens")
    cosines = np.cos(np.deg2rad([0, 90, 60, 30]))
    assert similarities.to_target("a", None, "x") == pytest.approx(cosines.mean(), abs=1e-6)
    assert similarities.to_target("a", 1, "x") == pytest.approx(cosines[2:].mean(), abs=1e-6)
    assert np.isnan(similarities.to_target("b", None, "x"))


def test_a_task_with_itself_is_compared_over_all_pairs_of_seeds_like_the_rest() -> None:
    found = KeySimilarities(
        results({("a", 0): key(0), ("a", 1): key(60)}, {("x", 0): key(90)}), "average_tokens"
    )
    matrix = found.matrix()
    assert matrix.tasks == ("a", "x")
    assert matrix.values[0, 0] == pytest.approx((1 + 1 + 0.5 + 0.5) / 4, abs=1e-6)
    assert matrix.values[1, 1] == pytest.approx(1.0, abs=1e-6)  # there is no other seed
    assert (
        matrix.values[0, 1]
        == matrix.values[1, 0]
        == pytest.approx(np.cos(np.deg2rad([90, 30])).mean(), abs=1e-6)
    )
    assert matrix.same_seed == pytest.approx(0.0, abs=1e-6)
    assert matrix.other_seed == pytest.approx(np.cos(np.deg2rad(30)), abs=1e-6)


def test_keys_of_one_seed_are_compared_where_both_are_there() -> None:
    found = results({("a", 0): key(0), ("a", 1): key(60)}, {("x", 0): key(0), ("x", 1): key(90)})
    scores = [Score("x", "a", seed, 50.0) for seed in (0, 1, 2)]
    values = KeySimilarities(found, "average_tokens").by_seed(ScoreArrays.of(scores, ["a"], ["x"]))
    assert values[0, 0, :2] == pytest.approx(np.cos(np.deg2rad([0, 30])), abs=1e-6)
    assert values[0, 0, 2] == pytest.approx(np.cos(np.deg2rad([0, 90, 60, 30])).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "expected"), [("average_tokens", 0.0), ("per_token_average", 0.0), ("maximum_token", 1.0)]
)
def test_maximum_token_finds_a_shared_token_where_means_do_not(metric: Similarity, expected: float) -> None:
    """A has the tokens at 0 and 180 degrees, X the same: the means cancel, each token has its match."""
    found = results({("a", 0): key(0, 180, 0)}, {("x", 0): key(0, 180, 180, 0)})
    assert KeySimilarities(found, metric).to_target("a", None, "x") == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_all_metrics_are_those_of_the_transfer_room(metric: Similarity) -> None:
    draw = np.random.default_rng(0)
    a, x = (draw.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
    found = KeySimilarities(results({("a", 0): a}, {("x", 0): x}), metric).to_target("a", None, "x")
    assert found == pytest.approx(similarity(torch.tensor(a), torch.tensor(x), metric))


def test_similar_tasks_stand_together() -> None:
    groups = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    values = np.where(groups[:, None] == groups[None], 0.9, 0.1)
    order = leaf_order(cluster_tree(values), 9)
    assert sorted(order) == list(range(9))
    assert sum(groups[a] != groups[b] for a, b in itertools.pairwise(order)) == 2


def test_neighbouring_clusters_touch_at_their_most_similar_ends() -> None:
    angles = np.deg2rad([40, 0, 90, 10, 50])
    order = leaf_order(cluster_tree(np.cos(angles[:, None] - angles[None])), 5)
    assert [int(np.rad2deg(angles[place]).round()) for place in order] in (
        [0, 10, 40, 50, 90],
        [90, 50, 40, 10, 0],
    )


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_tasks_keep_their_order(n: int) -> None:
    assert leaf_order(cluster_tree(np.eye(n)), n) == tuple(range(n))


def test_keys_of_different_models_are_told() -> None:
    found = KeySimilarities(
        results({("a", 0): key(0)}, {("x", 0): np.ones((1, 3), np.float32)}), "average_tokens"
    )
    with pytest.raises(DataError, match="width"):
        found.matrix()


def test_displacements_are_compared_by_their_mean_token() -> None:
    # The keys are alike, since both remember their start; what tuning did to them is not.
    found = replace(
        results({("a", 0): key(0)}, {("x", 0): key(0)}),
        source_displacements={("a", 0): key(0, 90)},
        target_displacements={("x", 0): key(135)},
    )
    assert KeySimilarities(found, "average_tokens").to_target("a", None, "x") == pytest.approx(1)
    displaced = KeySimilarities(found, "displacement")
    assert displaced.to_target("a", None, "x") == pytest.approx(0, abs=1e-6)
    assert displaced.matrix().metric == "displacement"


def test_a_source_with_one_key_has_it_for_every_seed() -> None:
    found = results({("a", 7): key(0)}, {("x", 0): key(0), ("x", 1): key(90)})
    scores = [Score("x", "a", seed, 50.0) for seed in (0, 1, 2)]
    values = KeySimilarities(found, "average_tokens").by_seed(ScoreArrays.of(scores, ["a"], ["x"]))
    # Seed 2 of the target has no key: the mean over its others.
    assert values[0, 0] == pytest.approx([1, 0, 0.5], abs=1e-6)


def test_untuned_losses_are_those_before_any_step() -> None:
    scores = [Score("x", source, seed, 50.0) for source in "abc" for seed in (0, 1)]
    grid = ScoreArrays.of(scores, ["a", "b", "c"], ["x"])
    first, later = (
        {"step": 0.0, "validation": 40.0, "validation_loss": 2.5},
        {"step": 5.0, "validation_loss": 1.0},
    )
    runs = {
        ("a", "x", 0): TransferRun(5, (first, later)),
        ("b", "x", 0): TransferRun(5, (later,)),  # was not scored before its first step
        ("c", "x", 9): TransferRun(5, (first,)),  # a seed that is not there
    }
    values = untuned_losses(runs, grid)
    assert values[0, 0, 0] == -2.5 and np.isfinite(values).sum() == 1


def test_a_study_ranks_by_everything_that_is_known() -> None:
    base = made()
    runs = {
        (one.source, one.target, one.seed): TransferRun(
            10, ({"step": 0.0, "validation": 30.0, "validation_loss": 2 - one.score / 100},)
        )
        for one in base.validation
        if one.source is not None
    }
    found = analyse(
        replace(base, runs=runs, source_displacements=base.source_keys, target_displacements=base.target_keys)
    )
    assert [one.metric for one in found.rankings] == [*SIMILARITIES, "displacement", "untuned_loss", None]
    by_loss = next(one for one in found.rankings if one.metric == "untuned_loss")
    assert by_loss.ndcg.mean > 0.95  # made of the validation scores
    assert set(found.similarities) == {*SIMILARITIES, "displacement"}  # a loss is of a pair, not of tasks
    assert "untuned_loss" in found.correlations
    row = found.row("best-of-top-k", "displacement", 1)
    assert row is not None and row == replace(
        found.row("best-of-top-k", "average_tokens", 1), metric="displacement"
    )  # type: ignore[type-var]
