"""A cell is run once, by one process, and leaves nothing but its result."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from experiments.cells import claimed


def test_a_cell_is_run_once_and_leaves_its_result_alone(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.with_suffix(".checkpoint").write_bytes(b"of a killed run")
    with claimed(path) as mine:
        assert mine
        path.write_text("7")
    assert list(tmp_path.iterdir()) == [path]
    with claimed(path) as mine:
        assert not mine
    assert list(tmp_path.iterdir()) == [path]


def test_a_cell_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    with FileLock(path.with_suffix(".lock")):
        with claimed(path) as mine:
            assert not mine
        assert path.with_suffix(".lock").exists()  # it is the other's


def test_an_interrupted_cell_keeps_its_checkpoint_and_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    with pytest.raises(KeyboardInterrupt), claimed(path):
        path.with_suffix(".checkpoint").write_bytes(b"so far")
        raise KeyboardInterrupt
    assert path.with_suffix(".checkpoint").exists()
    with claimed(path) as mine:
        assert mine
