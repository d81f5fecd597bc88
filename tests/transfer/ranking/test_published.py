"""The published T5 prompts ranked by each offline metric; the expected cosines were computed by somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from spoton.prompts import Card, SoftPrompt
from spoton.transfer import SIMILARITIES, similarity
from spoton.transfer.ranking.displacement import displacement
from spoton.transfer.ranking.similarity import most_similar

DEFAULT = Path(__file__).parents[3] / "shared"
FOLDER = Path(os.environ.get("SPOTON_SHARED", DEFAULT)) / "prompts" / "t5_1_1_lm100k_base"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="no published T5 prompts: set SPOTON_SHARED to the folder above prompts/"
)


def prompts() -> dict[str, SoftPrompt]:
    """Each matrix as a key, since no early checkpoint was published."""
    found = {}
    for path in sorted(FOLDER.glob("*.npy")):
        matrix = torch.from_numpy(np.load(path))
        card = Card(name=path.stem, task=path.stem, model="t5", model_fingerprint="f00d")
        found[path.stem] = SoftPrompt(matrix, card, matrix)
    return found


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_each_metric_ranks_the_others(metric: str) -> None:
    known = prompts()
    for name, target in known.items():
        others = [(other, prompt) for other, prompt in known.items() if other != name]
        assert target.key is not None
        ranked = most_similar(target.key, others, 2, metric)  # type: ignore[arg-type]
        assert len(ranked) == 2 and ranked[0].similarity >= ranked[1].similarity
        for one in ranked:
            assert one.similarity == pytest.approx(similarity(target.value, known[one.name].value, metric))  # type: ignore[arg-type]
    # They have no start, so nothing can be said of what their tasks did to them.
    assert all(displacement(prompt) is None for prompt in known.values())


def test_the_cosines_are_the_published_ones() -> None:
    known = prompts()
    pairs = {
        ("sst2", "mrpc"): (0.496, 0.017),
        ("sst2", "rte"): (0.518, 0.017),
        ("mrpc", "rte"): (0.565, 0.022),
    }
    for (one, other), (mean, each) in pairs.items():
        a, b = known[one].value, known[other].value
        assert similarity(a, b) == pytest.approx(mean, abs=5e-4)
        assert similarity(a, b, "per_token_average") == pytest.approx(each, abs=5e-4)
