"""Made-up results of studies, whose sources help the more the more alike their keys are to the target's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spoton.study.results.score_arrays import ScoreArrays
from spoton.study.results.study_results import Score, StudyResults

TOKENS, WIDTH = 3, 16


def made(
    sources: Sequence[str] = ("mnli", "qqp", "squad", "sst2"),
    targets: Sequence[str] = ("cb", "rte", "cr"),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    keys: bool = True,
    test: bool = True,
    **changes: Any,
) -> StudyResults:
    """Scores 60 from scratch and up to 20 more with transfer, and keys that are near where there is more."""
    draw = np.random.default_rng(0)
    gain = draw.uniform(-5, 20, (len(sources), len(targets)))
    directions = draw.standard_normal((len(targets), WIDTH))
    scores = {
        split: tuple(
            Score(target, source, seed, float(60 + (0 if s is None else gain[s, t]) + draw.normal(0, 1)))
            for s, source in [(None, None), *enumerate(sources)]
            for t, target in enumerate(targets)
            if source != target
            for seed in seeds
        )
        for split in ("validation", "test")
    }
    own = {
        (task, seed): (direction + draw.normal(0, 0.3, (TOKENS, WIDTH))).astype(np.float32)
        for names, rows in ((targets, directions), (sources, gain @ directions / 10))
        for task, direction in zip(names, rows, strict=True)
        for seed in seeds
    }
    facts: dict[str, Any] = {
        "sources": tuple(sources), "targets": tuple(targets),
        "validation": scores["validation"], "test": scores["test"] if test else (),
        "source_keys": {place: key for place, key in own.items() if place[0] in sources and keys},
        "target_keys": {place: key for place, key in own.items() if place[0] in targets and keys},
        "zero_shot": dict.fromkeys(targets, 40.0), "majority": dict.fromkeys(targets, 50.0),
        "metadata": {"name": "made up", "model": "none"},
    }  # fmt: skip
    return StudyResults(**facts | changes)


def without(scores: Sequence[Score], **fixed: Any) -> tuple[Score, ...]:
    """The scores but those with these fields."""
    return tuple(one for one in scores if any(getattr(one, name) != value for name, value in fixed.items()))


def arrays(rows: dict[str | None, list[float]], target: str = "x") -> ScoreArrays:
    """Scores of one target by source; None is from scratch; one score a seed, NaN where it is missing."""
    scores = [
        Score(target, source, seed, score)
        for source, found in rows.items()
        for seed, score in enumerate(found)
        if np.isfinite(score)
    ]
    return ScoreArrays.of(scores, [source for source in rows if source is not None], [target])


def points_of(r: float, n: int) -> list[tuple[str, int | None, float, float]]:
    """Points of n prompts of as many tasks, of which Pearson's r is exactly so much."""
    draw = np.random.default_rng(0)
    x, z = draw.standard_normal((2, n))
    x -= x.mean()
    z -= z.mean() + x * (z @ x) / (x @ x)
    z -= z.mean()
    y = r * x / np.linalg.norm(x) + np.sqrt(1 - r * r) * z / np.linalg.norm(z)
    return [(f"t{i}", 0, float(a), float(b)) for i, (a, b) in enumerate(zip(x, y, strict=True))]
