"""Files that others may have written: regular, read once, up to a size; all else is an `OSError` in words."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from spoton.reading import is_file, opened, read_bytes, read_text, reason


def test_bytes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("caf\u00e9".encode("latin-1"))
    assert read_bytes(path, most=4) == b"caf\xe9" and read_text(path, encoding="latin-1") == "caf\u00e9"
    with pytest.raises(UnicodeError):
        read_text(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"it has 1,099,511\.6 MB, expected at most 5\.0 MB"):
        read_bytes(path, most=5_000_000)


def test_a_file_without_a_size_is_bounded_as_well() -> None:
    """Files of /proc say that they are empty."""
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(OSError, match="expected at most"):
        read_bytes(path, most=10)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("pipe", "a pipe"), ("folder", "a folder"), ("device", "a device"), ("socket", "o such device")],
)
def test_what_is_not_a_regular_file_is_refused_at_once(kind: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    listener = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        listener.bind(str(path))
    with listener, pytest.raises(OSError) as refused:
        read_bytes(path)
    assert words in reason(refused.value)


def test_names_that_no_file_can_have() -> None:
    with pytest.raises(OSError, match="no file can have such a name"):
        read_bytes(Path("a\0b"))
    with pytest.raises(OSError) as refused:
        read_bytes(Path("x" * 300))
    assert reason(refused.value) == "file name too long"


def test_an_open_file_stays_the_same_though_another_takes_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"first")
    with opened(path) as file:
        (tmp_path / "b").write_bytes(b"second")
        (tmp_path / "b").replace(path)
        assert file.read() == b"first"


def test_a_text_too_long_for_a_path_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    assert is_file(tmp_path / "there") and is_file(str(tmp_path / "there"))
    assert not is_file("word " * 1000) and not is_file("zero\0byte") and not is_file(tmp_path)
