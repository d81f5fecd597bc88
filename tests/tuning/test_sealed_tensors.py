"""What checkpoints are made of comes back bit by bit, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spoton.files import sha256_of_file
from spoton.sealing import sealed
from spoton.tuning.sealed_tensors import discard_if_damaged, read_hashed, read_sealed, write_sealed

TENSORS = {
    "a": torch.arange(6.0).view(2, 3).T,
    "b": torch.tensor(3, dtype=torch.int64),
    "c": torch.empty(0, 4),
}


def test_tensors_and_plain_values_come_back(tmp_path: Path) -> None:
    write_sealed(tmp_path / "s", TENSORS, {"step": 3, "rate": 0.1, "words": ["caf\u00e9"]})
    tensors, plain = read_sealed(tmp_path / "s")
    assert plain == {"step": 3, "rate": 0.1, "words": ["caf\u00e9"]} and tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype and torch.equal(tensor, TENSORS[name])


def test_what_is_whole_and_something_else_is_refused(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"no tensors", (1).to_bytes(8, "little") + b"{")):
        (tmp_path / str(number)).write_bytes(sealed(data))
        with pytest.raises(ValueError, match="does not hold what it should"):
            read_sealed(tmp_path / str(number))
    with pytest.raises(OSError):
        read_sealed(tmp_path / "nowhere")


def test_only_the_damaged_is_discarded(tmp_path: Path) -> None:
    path = tmp_path / "s"
    discard_if_damaged(path)  # nothing there is nothing to remove
    write_sealed(path, TENSORS, {})
    discard_if_damaged(path)
    assert path.exists()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    discard_if_damaged(path)
    assert not path.exists()


def test_a_file_whose_hash_is_kept_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(3)}, path)
    assert torch.equal(read_hashed(path, sha256_of_file(path))["w"], torch.ones(3))
    with pytest.raises(ValueError, match=r"weights\.safetensors does not match"):
        read_hashed(path, "0" * 64)
