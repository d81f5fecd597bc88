"""Small real studies: a random Llama, three CSV files, a handful of steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import BAD, GOOD, NOUNS, tiny, tokenizer

MakeStudy = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    tiny("llama").network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def _rows(verb: str, labels: tuple[str, str]) -> str:
    lines = ["text,label"]
    for extra in ("", " Really."):
        for noun in NOUNS:
            for pair in zip(GOOD, BAD, strict=True):
                for label, word in zip(labels, pair, strict=True):
                    lines.append(f"The {noun} {verb} {word}.{extra},{label}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def make_study(tmp_path: Path, tiny_model: Path) -> MakeStudy:
    """Makes a folder with a study of two sources and one target, each a CSV beside the study file."""
    return partial(make_study_in, tmp_path, tiny_model)


def make_study_in(place: Path, model_folder: Path, /, name: str = "study", **changes: Any) -> Path:
    """See `make_study`."""
    folder = place / name
    folder.mkdir()
    for task, verb, labels in (
        ("films", "was", ("yes", "no")), ("books", "seems", ("yes", "no")), ("songs", "sounds", ("yes", "no")),
    ):  # fmt: skip
        (folder / f"{task}.csv").write_text(_rows(verb, labels))
    recipe = {"length": 4, "steps": 6, "key_step": 2, "evaluate_every": 3, "batch_size": 4}
    options = {"input": "text", "target": "label"}
    group = {"recipe": recipe, "train_size": 24, "validation_size": 8, "test_size": 8}
    document = {
        "model": str(model_folder), "dtype": "float32", "seeds": [0, 1],
        "sources": group | {"tasks": [{"task": f"{t}.csv", "options": options} for t in ("films", "books")]},
        "targets": group | {"tasks": [{"task": "songs.csv", "options": options}]},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(document | changes))
    return folder
