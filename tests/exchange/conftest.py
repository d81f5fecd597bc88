"""Prompts of tiny models, and texts to continue."""

from __future__ import annotations

from typing import Any

from spoton.models import FrozenModel
from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.prompts import Card, SoftPrompt
from tests.tiny import BAD, GOOD, NOUNS, draw

# 50 texts of unlike lengths.
TEXTS = [
    *(f"The {noun} was {word}." for noun in NOUNS for word in (*GOOD, *BAD)),
    *(f"{word} {noun}" for noun in NOUNS for word in ("A", "no")),
]


def prompt_of(model: FrozenModel, *, length: int = 7, seed: int = 1, **card: Any) -> SoftPrompt:
    """A random prompt that belongs to a model."""
    fields = {"name": "toy", "task": "toy", "model": model.name, "model_fingerprint": model.fingerprint}
    return SoftPrompt(draw(length, model.dim, seed=seed), Card(**(fields | card)))


def greedy(model: FrozenModel, prompt: SoftPrompt, text: str, max_tokens: int = 12) -> list[int]:
    """What spoton's engine continues a text with."""
    generate = engine_for(model).generator(prompt.value[None])
    return generate(Batch([model.encode_input(text)], [[]]), max_tokens)[0]
