"""Locks and temporary files: those of the living are left alone, those of the dead go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoton.errors import SpotonError
from spoton.locks import locked, scratch_file, scratch_folder, sweep


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing hidden may be left."""
    yield tmp_path
    assert not list(tmp_path.glob(".spoton-*"))


def test_an_output_has_one_writer_and_its_lock_leaves_nothing(folder: Path) -> None:
    with (
        locked(folder / "new" / "p.safetensors"),
        pytest.raises(SpotonError, match="Another process is writing"),
        locked(folder / "new" / "p.safetensors"),
    ):
        pass
    with locked(folder / "new" / "p.safetensors"), locked(folder / "new" / "q.safetensors"):
        pass
    assert not list((folder / "new").iterdir())


def test_two_paths_to_one_output_are_one(folder: Path) -> None:
    (folder / "in").mkdir()
    with locked(folder / "p"), pytest.raises(SpotonError), locked(folder / "in" / ".." / "p"):
        pass


def test_a_lock_is_given_back_after_an_error(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(folder / "p"):
        _ = 1 / 0
    with locked(folder / "p"):
        pass


def test_a_folder_that_cannot_be_is_an_error_that_names_the_output(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    with pytest.raises(SpotonError, match=r"Cannot write .*file/p"), locked(folder / "file" / "p"):
        pass


def test_a_scratch_file_goes_unless_it_was_given_a_name(folder: Path) -> None:
    with scratch_file(folder) as (path, descriptor):
        os.write(descriptor, b"kept")
        path.rename(folder / "name")
    with scratch_file(folder):
        pass
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("name", b"kept")]


def test_a_scratch_folder_goes_with_all_that_is_in_it(folder: Path) -> None:
    with scratch_folder(folder / "new") as scratch:
        (scratch / "a").write_text("x")
        (scratch / "a").rename(folder / "new" / "a")
        (scratch / "b").write_text("x")
    assert [path.name for path in (folder / "new").iterdir()] == ["a"]


def test_a_sweep_spares_the_living_and_what_is_not_ours(folder: Path) -> None:
    dead = [folder / ".spoton-0123.tmp", folder / ".spoton-4567.lock"]
    for path in dead:
        path.write_text("left")
    (folder / ".spoton-folder.tmp" / "deep").mkdir(parents=True)
    others = [folder / "spoton.tmp", folder / ".spoton-notes.txt"]
    for path in others:
        path.write_text("mine")
    (folder / ".spoton-link.tmp").symlink_to(folder / "spoton.tmp")
    with scratch_file(folder) as (living, _), locked(folder / "p"):
        sweep(folder)
        assert living.exists() and len(list(folder.glob(".spoton-*.lock"))) == 1
    assert not any(path.exists() for path in dead) and not (folder / ".spoton-folder.tmp").exists()
    assert all(path.exists() for path in others)
    for path in (folder / ".spoton-link.tmp", folder / ".spoton-notes.txt"):
        path.unlink()


def test_where_there_are_no_locks_age_tells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> bool:
        raise OSError("no locks on this disk")

    monkeypatch.setattr("spoton.locks._flock", refuse)
    young, old = folder / ".spoton-0.tmp", folder / ".spoton-1.tmp"
    for path, age in ((young, 60), (old, 2 * 24 * 3600)):
        path.write_text("left")
        os.utime(path, (time.time() - age,) * 2)
    sweep(folder)
    assert young.exists() and not old.exists()
    young.unlink()
