"""Small prompts to test with."""

import pytest
import torch

from spoton.prompts import Card, SoftPrompt


@pytest.fixture(scope="session")
def card() -> Card:
    return Card(
        name="movies",
        task="movie_sentiment",
        model="tiny-llama",
        model_fingerprint="f00d",
        family="sentiment",
        labels=["negative", "positive"],
        recipe={"length": 4, "learning_rate": 0.3, "init": "vocabulary"},
        scores={"validation": {"accuracy": 81.25}},
        created="2025-01-02T03:04:05+00:00",
        notes="größer, 大きい",
    )


@pytest.fixture(scope="session")
def prompt(card: Card) -> SoftPrompt:
    numbers = torch.Generator().manual_seed(0)
    return SoftPrompt(torch.randn(4, 3, generator=numbers), card, torch.randn(4, 3, generator=numbers))
