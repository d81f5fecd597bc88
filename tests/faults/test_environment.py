"""Where spoton runs: as another user, without a home, on read-only and on full disks, next to another writer.

Each ends with one sentence and the documented exit code. Everything is real: other users, mounts and small disks are
those of the system, so a test that needs rights is skipped where this process has none.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.tasks import Task
from spoton.tuning import Recipe
from spoton.tuning.tune_to_file import tune_to_file
from tests.faults.conftest import Child, Ended, litter, spoton
from tests.study.small import make_study_in
from tests.tiny import WIDTH, draw

NOBODY = 65534
NEW_MOUNTS = 0x00020000
PRIVATE, READ_ONLY, REMOUNT, BIND = (1 << 18) | (1 << 14), 1, 32, 4096

RECIPE = ("--length", "4", "--steps", "4", "--key-step", "2", "--evaluate-every", "2", "--batch-size", "4")

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user or mount"
)


def one_sentence(ended: Ended, *words: str) -> None:
    """The documented exit code 2, one error and no traceback."""
    assert ended.code == 2, (ended.code, ended.stdout, ended.stderr)
    # The second is that of a wrong option or argument, in a box that breaks long paths.
    assert len(re.findall(r"Error:|─ Error ─", ended.stderr)) == 1, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    unboxed = re.sub(r"\s*│\n│ ", "", ended.stderr)
    assert all(word in ended.stderr or word in unboxed for word in words), ended.stderr


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="spoton-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made(tiny_model: Path, model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything: a model, data, a prompt in a library, a study of which one cell is left."""
    folder = tmp_path_factory.mktemp("things")
    make_study_in(folder, tiny_model, seeds=[0])
    assert spoton("study", "run", folder / "study").code == 0
    next((folder / "study" / "cells").glob("transfer.*.json")).unlink()
    shutil.copytree(tiny_model, folder / "model")
    shutil.copy(folder / "study" / "films.csv", folder / "films.csv")
    card = Card(
        name="news", task="news_task", model="tiny", model_fingerprint=model.fingerprint, labels=["yes", "no"],
        template="{{ text }}", metric="accuracy",
    )  # fmt: skip
    PromptLibrary(folder / "library").add(SoftPrompt(draw(4, WIDTH), card, draw(4, WIDTH, seed=1)))
    return folder


@pytest.fixture
def things(made: Path, place: Path) -> Path:
    """A copy of them where every user may read."""
    copy = shutil.copytree(made, place / "things")
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def become(user: int) -> None:
    """Gives up all rights of root, after Python was put where every user may read it."""
    in_private_mounts(let_others_read_python)()
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    os.environ.update(HOME="/nonexistent", SPOTON_CACHE=tempfile.mkdtemp())


def let_others_read_python() -> None:
    """Replaces a folder that is root's alone, such as its home, by one in which there is Python and nothing else."""
    base = Path(sys.base_prefix)
    shut = next((folder for folder in reversed(base.parents) if not folder.stat().st_mode & 0o001), None)
    if shut is not None:
        aside = Path(tempfile.mkdtemp())
        do_mount(str(base), aside, None, BIND)
        do_mount("tmpfs", shut, "tmpfs", 0, "mode=755")
        base.mkdir(parents=True)
        do_mount(str(aside), base, None, BIND)


def commands(things: Path, out: Path) -> list[list[object]]:
    """Command lines that read from or write to a folder."""
    prompt, films, model = things / "library" / "news.safetensors", things / "films.csv", things / "model"
    columns = ("--input", "text", "--target", "label")
    return [
        ["library", "list", "--library", things / "library"],
        ["library", "show", prompt],
        ["library", "verify", "--library", things / "library"],
        ["library", "show", "news", "--library", things / "library"],
        ["tasks", "show", films, *columns],
        ["tune", films, *columns, "--model", model, *RECIPE, "--out", out],
        ["tune", films, *columns, "--model", model, *RECIPE, "--init", prompt, "--out", out],
        ["adapt", films, *columns, "--model", model, *RECIPE, "--library", things / "library", "--out", out],
        ["evaluate", prompt, films, *columns, "--model", model],
        ["predict", prompt, "fine", "--model", model],
        ["predict", prompt, "--model", model, "--file", films],
        ["retrieve", films, *columns, "--model", model, *RECIPE, "--library", things / "library"],
        ["similarity", prompt, prompt],
        ["doctor", films, *columns, "--model", model, *RECIPE],
        ["export", prompt, "--to", "t5x", "--out", out.with_suffix(".npy")],
        ["import", prompt, "--from", "openprompt", "--out", out],
        ["study", "plan", things / "study"],
        ["study", "status", things / "study"],
        ["study", "run", things / "study"],
        ["study", "analyse", things / "study"],
    ]


@as_root
def test_folders_of_another_user_are_refused_in_a_sentence(things: Path, place: Path) -> None:
    out = place / "out"
    out.mkdir()
    out.chmod(0o777)
    things.chmod(0o700)
    for command in commands(things, out / "p.safetensors"):
        one_sentence(spoton(*command, before=partial(become, NOBODY)), str(things))
    assert not [path for path in out.rglob("*") if path.is_file()]


@as_root
def test_files_of_another_user_are_refused_in_a_sentence(things: Path, place: Path) -> None:
    """The folders can be listed and the files in them not read, such as after a `sudo`."""
    out = place / "out"
    out.mkdir()
    out.chmod(0o777)
    for path in things.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o600)
    for command in commands(things, out / "p.safetensors"):
        ended = spoton(*command, before=partial(become, NOBODY))
        if command[:2] == ["library", "list"]:  # what can be listed is; what cannot be read is named
            assert ended.code == 0 and "news" in ended.stderr and "ermission denied" in ended.stderr
        elif command[:2] == ["library", "verify"]:  # its table names them
            assert ended.code == 2 and "news" in ended.stdout and "ermission denied" in ended.stdout
        else:
            one_sentence(ended, str(things))


WRITERS: dict[str, Callable[[Path, Path], list[object]]] = {
    "library add": lambda things, shut: ["library", "add", things / "library" / "news.safetensors", "--library", shut],
    "library remove": lambda things, shut: ["library", "remove", "news", "--library", shut / "library"],
    "tune": lambda things, shut: ["tune", things / "films.csv", "--input", "text", "--target", "label", "--model",
                                  things / "model", *RECIPE, "--out", shut / "p.safetensors"],
    "tune --method model": lambda things, shut: [
        "tune", things / "films.csv", "--input", "text", "--target", "label", "--model", things / "model",
        "--method", "model", "--steps", "2", "--out", shut / "m"],
    "adapt": lambda things, shut: ["adapt", things / "films.csv", "--input", "text", "--target", "label", "--model",
                                   things / "model", "--library", things / "library", *RECIPE, "--out",
                                   shut / "p.safetensors"],
    "predict": lambda things, shut: ["predict", things / "library" / "news.safetensors", "--model", things / "model",
                                     "--file", things / "films.csv", "--out", shut / "answers.csv"],
    "evaluate": lambda things, shut: ["evaluate", things / "library" / "news.safetensors", things / "films.csv",
                                      "--input", "text", "--target", "label", "--model", things / "model",
                                      "--predictions", shut / "answers.csv"],
    "export": lambda things, shut: ["export", things / "library" / "news.safetensors", "--to", "t5x", "--out",
                                    shut / "p.npy"],
    "study new": lambda things, shut: ["study", "new", shut / "new"],
    "study run": lambda things, shut: ["study", "run", shut / "study"],
    "study report": lambda things, shut: ["study", "report", shut / "study", "--no-files", "--out", shut / "r.html"],
}  # fmt: skip


def in_private_mounts(mount: Callable[[], None]) -> Callable[[], None]:
    """What a process does to have mounts of its own, which end with it."""

    def prepare() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) != 0:
            os._exit(NOT_PERMITTED)
        do_mount(None, "/", None, PRIVATE)
        mount()

    return prepare


NOT_PERMITTED = 77


def do_mount(
    source: str | None, target: str | Path, kind: str | None, flags: int, options: str | None = None
) -> None:
    c = ctypes.CDLL(None, use_errno=True)
    texts = [None if text is None else str(text).encode() for text in (source, target, kind, options)]
    if c.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]) != 0:
        os._exit(NOT_PERMITTED)


def skip_if_not_permitted(ended: Ended) -> None:
    if ended.code == NOT_PERMITTED:
        pytest.skip("this process may not mount")


@as_root
@pytest.mark.parametrize("verb", WRITERS)
def test_a_read_only_disk(verb: str, things: Path, place: Path) -> None:
    """A read-only mount, which stops root as well."""
    shut = place / "shut"
    shutil.copytree(things, shut)

    def mount() -> None:
        do_mount(str(shut), shut, None, BIND)
        do_mount(None, shut, None, REMOUNT | BIND | READ_ONLY)

    ended = spoton(*WRITERS[verb](things, shut), before=in_private_mounts(mount))
    skip_if_not_permitted(ended)
    one_sentence(ended, str(shut), "ead-only")


@as_root
@pytest.mark.parametrize("verb", WRITERS)
def test_a_full_disk(verb: str, things: Path, place: Path) -> None:
    """A disk of half a megabyte that is filled to the last byte."""
    small = place / "small"
    small.mkdir()

    def mount() -> None:
        do_mount("tmpfs", small, "tmpfs", 0, "size=512k")
        for name in ("library", "study"):
            shutil.copytree(things / name, small / name)
        try:
            (small / "filler").write_bytes(bytes(2**20))
        except OSError:
            assert shutil.disk_usage(small).free == 0

    ended = spoton(*WRITERS[verb](things, small), before=in_private_mounts(mount))
    skip_if_not_permitted(ended)
    if verb == "library remove":  # which needs no space
        assert ended.code == 0, ended.stderr
    else:
        one_sentence(ended, str(small), "o space left")


def test_a_full_stdout(things: Path) -> None:
    """`/dev/full` is a full disk that needs no rights."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")

    def redirect() -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        os.dup2(descriptor, 1)

    for command in (["library", "list", "--library", things / "library"], ["tasks", "list", "--json"]):
        one_sentence(spoton(*command, before=redirect), "stdout", "o space left")


@as_root
def test_a_user_without_a_home_and_without_a_name(things: Path, place: Path) -> None:
    """As in a container that runs under any number: from the start of Python on, nobody knows this user."""
    out = place / "out"
    out.mkdir()
    out.chmod(0o777)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }

    def start(*line: object) -> Ended:
        def before() -> None:
            become(54321)
            os.chdir(out)
            os.execve(sys.executable, [sys.executable, "-m", "spoton", *map(str, line)], environment)

        ended = spoton(before=before)
        skip_if_not_permitted(ended)
        return ended

    columns = ("--input", "text", "--target", "label")
    one_sentence(start("library", "list"), "no home folder", "SPOTON_LIBRARY")
    prompt = out / "p.safetensors"
    ended = start(
        "tune", things / "films.csv", *columns, "--model", things / "model", *RECIPE, "--out", prompt
    )
    assert ended.code == 0 and "Traceback" not in ended.stderr, ended.stderr
    assert SoftPrompt.load(prompt).card.task == "films"


@pytest.mark.parametrize("verb", ["tune", "adapt"])
def test_a_second_writer_of_one_output(
    verb: str, things: Path, place: Path, model: FrozenModel, task: Task
) -> None:
    out = place / "p.safetensors"
    read, write = os.pipe()

    def run() -> None:
        def tell(event: object) -> None:
            os.write(write, b"x")

        tune_to_file(model, task, Recipe(length=4, steps=10**6, key_step=2), out, on_event=tell)

    first = Child(run)
    try:
        assert os.read(read, 1) == b"x"
        columns = ("--input", "text", "--target", "label")
        library = ("--library", things / "library") if verb == "adapt" else ()
        line = [
            verb,
            things / "films.csv",
            *columns,
            "--model",
            things / "model",
            *RECIPE,
            *library,
            "--out",
            out,
        ]
        one_sentence(spoton(*line), "Another process is writing", str(out))
    finally:
        first.kill_after(0)
    assert spoton(*line).code == 0  # the lock of a dead writer is nobody's
    assert litter(place) == []
