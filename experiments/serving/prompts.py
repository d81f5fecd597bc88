"""Prompts and texts to serve: the starter library's prompts, changed slightly, so that each answers differently."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from spoton.prompts import PromptLibrary, SoftPrompt, starter_library
from spoton.tasks import load_task

# Their rows have one text each. They have three label sets, with one token per label.
SOURCES = ("sst2", "movie_sentiment", "trec", "ag_news")
# Of PEFT's examples, of the preset for decoder-only models, and of the paper.
LENGTHS = (20, 32, 100)


def varied(number: int) -> SoftPrompt:
    """Returns a starter prompt with noise and another length; the same number always gives the same prompt.

    It has no calibration, which PEFT does not know and which would no longer fit.
    """
    source = starter_library().get(SOURCES[number % len(SOURCES)])
    length = LENGTHS[number % len(LENGTHS)]
    noise = torch.randn(length, source.dim, generator=torch.Generator().manual_seed(number))
    value = source.value[torch.arange(length) % source.length] + 0.02 * noise
    return SoftPrompt(value, source.card.model_copy(update={"name": name_of(number), "calibration": None}))


def name_of(number: int) -> str:
    """Returns the name of the prompt of a number."""
    return f"prompt-{number:03d}"


def fill_library(folder: Path, count: int) -> PromptLibrary:
    """Returns a library of the first prompts."""
    library = PromptLibrary(folder)
    for number in range(count):
        library.add(varied(number), replace=True)
    return library


def texts(count: int) -> list[str]:
    """Returns texts of movie reviews, of all lengths."""
    rows = load_task("movie_sentiment").train
    chosen = random.Random(0).sample(rows, count)
    return [row.input.removesuffix("Sentiment:").strip() for row in chosen]
