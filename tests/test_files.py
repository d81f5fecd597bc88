"""Files: whole or absent, whatever happens. Full disks, kills and races are real, in their own processes."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton import files
from spoton.errors import SpotonError


def run(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_writes_and_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    files.atomic_write(path, b"first")
    files.atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_the_file_has_the_mode_that_the_user_chose_for_new_files(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "ours", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_without_overwrite_the_first_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    files.atomic_write(path, b"first", overwrite=False)
    with pytest.raises(FileExistsError):
        files.atomic_write(path, b"second", overwrite=False)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_without_overwrite_on_a_disk_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_without_overwrite_the_first_content_stays(tmp_path)


def test_full_disk_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    writer = run(
        """
import resource, sys
from pathlib import Path
from spoton.errors import SpotonError
from spoton.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(Path(sys.argv[1]), bytes(100_000))
except SpotonError as error:
    print(error)
""",
        path,
    )
    message, _ = writer.communicate(timeout=60)
    assert message.startswith(f"Cannot write {path}: file too large. Free some space")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(tmp_path / "file.bin", b"data")
    assert list(tmp_path.iterdir()) == []


def test_kill_in_mid_write_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    whole = {bytes([letter]) * 1_000_000 for letter in b"ab"}
    writer = run(
        """
import sys
from itertools import cycle
from pathlib import Path
from spoton.files import atomic_write
for letter in cycle(b"ab"):
    atomic_write(Path(sys.argv[1]), bytes([letter]) * 1_000_000)
""",
        path,
    )
    deadline = time.monotonic() + 60
    while not path.exists():
        assert writer.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(20):
        assert path.read_bytes() in whole
    writer.kill()
    writer.communicate()
    assert path.read_bytes() in whole


def test_of_eight_processes_that_want_one_name_exactly_one_gets_it(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from spoton.files import atomic_write
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready-{me}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
start = (folder / "go").stat().st_mtime
for number in range(50):
    time.sleep(max(0, start + 0.1 + 0.03 * number - time.time()))  # all at the same moment, again and again
    try:
        atomic_write(folder / "names" / str(number), me.encode() * 1000, overwrite=False)
        print(number)
    except FileExistsError:
        pass
"""
    writers = [run(code, tmp_path, me) for me in range(8)]
    while len(list(tmp_path.glob("ready-*"))) < 8:
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    won = [sorted(map(int, writer.communicate(timeout=60)[0].split())) for writer in writers]
    assert sorted(number for numbers in won for number in numbers) == list(range(50))
    for me, numbers in enumerate(won):
        for number in numbers:
            assert (tmp_path / "names" / str(number)).read_text() == str(me) * 1000
    assert len(list((tmp_path / "names").iterdir())) == 50


def test_a_folder_that_cannot_be_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpotonError, match=r"file is a file, not a folder\. Choose a path"):
        files.atomic_write(tmp_path / "file" / "below", b"data")
    with pytest.raises(SpotonError, match="Cannot write"):
        files.atomic_write(tmp_path / "file" / "far" / "below", b"data")
    with pytest.raises(SpotonError, match="file name too long"):
        files.atomic_write(tmp_path / ("n" * 300), b"data")


@pytest.mark.parametrize("path", ["/dev/null", "/dev"])
def test_a_device_or_folder_is_never_replaced(path: str) -> None:
    with pytest.raises(SpotonError, match="not a regular file"):
        files.atomic_write(Path(path), b"data")
    assert not Path(path).is_file()


def test_writability_is_known_before_writing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    files.require_writable(path)
    assert list(path.parent.iterdir()) == []
    path.write_bytes(b"old")
    files.require_writable(path)
    assert path.read_bytes() == b"old"
    for wrong in (path / "below", path.parent, Path("/proc/none/file.bin")):
        with pytest.raises(SpotonError, match=f"Cannot write {wrong}: "):
            files.require_writable(wrong)


def test_cache_folder_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    assert files.cache_folder() == tmp_path / "cache"
    assert (tmp_path / "cache").is_dir()


def test_cache_folder_that_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SpotonError, match=r"not a directory\. Set SPOTON_CACHE"):
        files.cache_folder()


def test_sha256_of_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert files.sha256_of_file(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@given(st.lists(st.text(st.characters())), st.lists(st.text(st.characters())))
def test_sha256_of_text_differs_unless_all_parts_are_equal(one: list[str], other: list[str]) -> None:
    assert (files.sha256_of_text(one) == files.sha256_of_text(other)) == (one == other)


def test_sha256_of_text_keeps_parts_apart_and_takes_lone_surrogates() -> None:
    assert files.sha256_of_text(["ab", "c"]) != files.sha256_of_text(["a", "bc"])
    assert len(files.sha256_of_text(["\ud800"])) == 64


def test_what_saves_itself_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"

    def half(place: Path) -> None:
        place.write_bytes(b"ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.atomic_save(path, half)
    assert list(path.parent.iterdir()) == []
    files.atomic_save(path, lambda place: place.touch())
    files.atomic_write(path, b"first")
    with pytest.raises(KeyboardInterrupt):
        files.atomic_save(path, half)
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]
    with pytest.raises(SpotonError, match="Cannot write"):
        files.atomic_save(path / "below", lambda place: None)
