"""GGUF files that are unpacked load as the file does, and nothing half-done is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from spoton.errors import ModelError
from spoton.exchange import gguf
from spoton.exchange.baked import bake
from spoton.exchange.gguf import export_gguf
from spoton.models import FrozenModel, gguf_files, load_model, unpack_gguf
from spoton.models.gguf_files import require_plain_positions
from tests.exchange.conftest import prompt_of
from tests.tiny import VOCABULARY, tiny


def with_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, numbers: dict[str, str | float], factors: list[float]
) -> Path:
    """Writes a small model whose positions are scaled, as llama.cpp's converter writes them."""
    shape, tensors = gguf._add_shape, gguf._tensors

    def add_shape(writer: Any, config: Any) -> None:
        shape(writer, config)
        for key, value in numbers.items():
            (writer.add_string if isinstance(value, str) else writer.add_float32)(
                f"llama.rope.scaling.{key}", value
            )

    def all_tensors(baked: Any, architecture: Any) -> Iterator[Any]:
        yield from tensors(baked, architecture)
        if factors:
            yield "rope_freqs.weight", np.array(factors, dtype=np.float32), GGMLQuantizationType.F32

    monkeypatch.setattr(gguf, "_add_shape", add_shape)
    monkeypatch.setattr(gguf, "_tensors", all_tensors)
    return write_gguf(path)


def write_gguf(path: Path) -> Path:
    """Writes a small model as a GGUF file, with the token that transformers adds to every tokenizer of this kind."""
    small = tiny("llama", vocab_size=VOCABULARY + 1)
    words = small.tokenizer
    words.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    model = FrozenModel(small.name, small.network, words)
    return export_gguf(bake(model, [prompt_of(model)]), path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def test_the_folder_is_the_model_of_the_file(file: Path, tmp_path: Path) -> None:
    told: list[str] = []
    folder = unpack_gguf(file, tmp_path / "new" / "folder", on_message=told.append)
    of_file, of_folder = (load_model(str(place), dtype="float32") for place in (file, folder))
    assert of_folder.fingerprints == of_file.fingerprints
    assert torch.equal(of_folder.embeddings, of_file.embeddings)
    text = "The film was good."
    assert of_folder.encode_input(text) == of_file.encode_input(text)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # as open to others as any file
    assert told == ["Decoding tiny.gguf (about a minute for each 300M parameters)"]


def test_a_file_that_is_no_model_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"not a gguf file")
    with pytest.raises(ModelError, match=r"damaged\.gguf could not be read as a model"):
        unpack_gguf(tmp_path / "damaged.gguf", tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.gguf"]


@pytest.mark.parametrize(("name", "told"), [("missing.gguf", "no .gguf file"), (".", "no .gguf file")])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        unpack_gguf(tmp_path / name, tmp_path / "folder")


def test_a_folder_that_exists_is_left_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match=r"folder exists already.*--out"):
        unpack_gguf(file, tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_full_disk_says_what_to_do(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, folder: Path) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_files, "decode_gguf", full)
    with pytest.raises(ModelError, match=r"No space left on device.*another --out"):
        unpack_gguf(file, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize(
    ("numbers", "factors", "told"),
    [
        ({}, [1.0, 1.5, 8.0], "rope_freqs.weight"),
        ({"type": "linear", "factor": 4.0}, [], "rope.scaling.type linear"),
        ({"type": "yarn", "factor": 4.0}, [], "rope.scaling.type yarn"),
    ],
)
def test_scaled_positions_are_refused_since_they_would_be_lost(
    numbers: dict[str, str | float],
    factors: list[float],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = with_more(tmp_path / "scaled.gguf", monkeypatch, numbers, factors)
    for read in (lambda: load_model(str(file)), lambda: unpack_gguf(file, tmp_path / "folder")):
        with pytest.raises(ModelError, match=f"scaled rotary positions .{told}.*own folder or hub id"):
            read()
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("numbers", "factors"),
    [({"type": "none"}, []), ({"type": "linear", "factor": 1.0}, []), ({}, [1.0, 1.0])],
)
def test_positions_that_are_scaled_by_one_are_read(
    numbers: dict[str, str | float], factors: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_plain_positions(with_more(tmp_path / "plain.gguf", monkeypatch, numbers, factors))
