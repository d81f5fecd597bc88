"""A cell is run once, by one process, and leaves nothing but its result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from filelock import FileLock

from experiments.cells import Stopwatch, cell_parser, claimed, claimed_together, model_of
from spoton.models import FrozenModel
from tests.tiny import tiny


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


def test_processes_share_cells_in_groups(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(7)]
    paths[1].write_text("done")
    others = FileLock(paths[3].with_suffix(".lock"))
    others.acquire()
    groups = []
    for mine in claimed_together(paths, 2):
        groups.append([path.stem for path in mine])
        assert {path.stem for path in tmp_path.glob("*.lock")} == {*groups[-1], "3"}
        for path in mine:
            with claimed(path) as again:
                assert not again
            path.write_text("7")
    assert groups == [["0", "2"], ["4", "5"], ["6"]]
    others.release()
    assert [[path.stem for path in mine] for mine in claimed_together(paths, 9)] == [["3"]]
    assert not [path for path in tmp_path.glob("*.lock") if path.stem != "3"]


def test_a_group_is_free_again_after_an_error(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(2)]
    first = claimed_together(paths, 2)
    assert next(first) == paths
    assert list(claimed_together(paths, 2)) == []
    first.close()
    assert next(claimed_together(paths, 2)) == paths


def test_the_model_is_the_one_that_the_command_line_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def load(name: str, *, device: str, dtype: str) -> FrozenModel:
        asked.append((name, device, dtype))
        return tiny("llama")

    monkeypatch.setattr("experiments.cells.load_model", load)
    threads = torch.get_num_threads()
    words = ["--device", "cpu", "--dtype", "float32", "--threads", str(threads), "--memory-share", "0.1"]
    model = model_of(cell_parser(None).parse_args(words), "other")
    assert asked == [("other", "cpu", "float32")]
    assert Stopwatch(model, 3).spent().keys() == {"cpu_seconds", "wall_seconds", "together", "device"}
