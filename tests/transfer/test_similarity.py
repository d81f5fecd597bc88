"""Similarities against values worked out by hand and against three published prompts."""

import os
from pathlib import Path

import pytest
import torch

from spoton.errors import PromptError
from spoton.exchange.t5x import load_t5x
from spoton.transfer import SIMILARITIES, similarity

A = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
B = torch.tensor([[3.0, 0.0]])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("average_tokens", 1 / 5**0.5),  # cosine of (0.5, 1) and (3, 0)
        ("per_token_average", 0.5),  # mean of the cosines 1 and 0
        ("maximum_token", 2 / 3),  # 1 and 0 from A, 1 from B
    ],
)
def test_values_by_hand_in_both_directions(metric: str, expected: float) -> None:
    assert similarity(A, B, metric) == pytest.approx(expected)
    assert similarity(B, A, metric) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["average_tokens", "maximum_token"])
def test_rounding_does_not_leave_the_range(metric: str) -> None:
    for seed in range(100):
        prompt = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed))
        found = similarity(prompt, prompt, metric)
        assert found == pytest.approx(1) and found <= 1
        assert similarity(prompt, -prompt, metric) >= -1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(PromptError, match="width"):
        similarity(A, torch.ones(2, 3))
    with pytest.raises(PromptError, match="average_tokens"):
        similarity(A, B, "euclid")
    assert set(SIMILARITIES) == {"average_tokens", "per_token_average", "maximum_token"}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    default = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("SPOTON_SHARED", default)) / "prompts" / "t5_1_1_lm100k_base"
    if not folder.is_dir():
        pytest.skip("the published T5X prompts are not here; set SPOTON_SHARED to the folder above prompts/")
    return {name: load_t5x(folder / f"{name}.npy") for name in ("sst2", "mrpc", "rte")}


@pytest.mark.parametrize(
    ("a", "b", "average", "per_token"),
    [
        ("sst2", "mrpc", 0.496, 0.017),
        ("sst2", "rte", 0.518, 0.017),
        ("mrpc", "rte", 0.565, 0.022),
        ("sst2", "sst2", 1.0, 0.030),
        ("mrpc", "mrpc", 1.0, 0.040),
        ("rte", "rte", 1.0, 0.035),
    ],
)
def test_published_prompts(
    published: dict[str, torch.Tensor], a: str, b: str, average: float, per_token: float
) -> None:
    one, other = published[a], published[b]
    assert similarity(one, other, "average_tokens") == pytest.approx(average, abs=6e-4)
    assert similarity(one, other, "per_token_average") == pytest.approx(per_token, abs=6e-4)
    assert similarity(one, one, "maximum_token") == pytest.approx(1)
