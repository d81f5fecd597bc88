"""The wheel in an empty environment: it carries all its data and runs outside of the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout with the build backend of this environment."""
    folder = tmp_path_factory.mktemp("dist")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(CHECKOUT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("spoton-*.whl")
    return built


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment that has the wheel. Its dependencies are borrowed from this one."""
    home = tmp_path_factory.mktemp("home")
    environment = home / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    # A line in a .pth file adds a folder but not what that folder's own .pth files name: not the checkout.
    packages = Path(
        sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)})
    )
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"SPOTON_CACHE": str(home / "cache"), "SPOTON_LIBRARY": str(home / "library")}

    def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
        command = [str(environment / "bin" / program), *args]
        done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("spoton/")}
    source = CHECKOUT / "src"
    files = {path.relative_to(source).as_posix() for path in (source / "spoton").rglob("*") if path.is_file()}
    assert packed == {name for name in files if "__pycache__" not in name}
    assert "spoton/py.typed" in packed
    assert any(name.startswith("spoton/tasks/catalog/") for name in packed)


def test_it_is_the_wheel_that_runs(installed: Run) -> None:
    where = installed("python", "-c", "import spoton; print(spoton.__file__)").stdout
    assert "environment" in where and str(CHECKOUT) not in where


def test_version(installed: Run) -> None:
    version = installed("python", "-c", "import importlib.metadata as m; print(m.version('spoton'))").stdout
    assert installed("spoton", "--version").stdout == f"spoton {version}"


def test_tasks_list(installed: Run) -> None:
    tasks = json.loads(installed("spoton", "tasks", "list", "--json").stdout)
    assert len(tasks) >= 10
    assert len({task["family"] for task in tasks}) >= 4


def test_library_list_shows_the_starter_library(installed: Run) -> None:
    prompts = json.loads(installed("spoton", "library", "list", "--json").stdout)
    assert len(prompts) >= 8
    assert len({prompt["card"]["family"] for prompt in prompts}) >= 4
    assert all("environment" in prompt["path"] for prompt in prompts)
