"""The tree of commands, how mistakes are reported, and what may stand on stdout."""

import inspect
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.main import get_command

import spoton
from spoton.cli.app import app
from spoton.cli.command import SpotonGroup, command
from spoton.cli.recipe_options import RecipeOptions
from spoton.errors import DataError
from tests.cli.conftest import Run

COMMANDS = {
    "adapt", "tune", "evaluate", "predict", "retrieve", "similarity", "doctor", "export", "import", "serve",
    "library list", "library show", "library add", "library remove", "library verify",
    "library push", "library pull",
    "tasks list", "tasks show", "models list", "models pull", "models unpack",
    "study new", "study plan", "study run", "study status", "study import", "study analyse", "study report",
}  # fmt: skip


def leaves(group: Any, path: str = "") -> dict[str, Any]:
    """Every command by the words that call it."""
    found: dict[str, Any] = {}
    for name, child in group.commands.items():
        words = f"{path} {name}".strip()
        found |= leaves(child, words) if hasattr(child, "commands") else {words: child}
    return found


def test_the_commands_are_exactly_these() -> None:
    assert set(leaves(get_command(app))) == COMMANDS


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_command_has_json_examples_and_help(words: str, run: Run) -> None:
    found = leaves(get_command(app))[words]
    assert "--json" in {flag for parameter in found.params for flag in parameter.opts}
    assert f"spoton {words}" in found.epilog
    undocumented = [parameter.name for parameter in found.params if not parameter.help]
    assert not undocumented
    arguments = [one.metavar for one in found.params if one.param_type_name == "argument"]
    assert all(name.isupper() and "[" not in name for name in arguments)  # `--help` adds the brackets
    helped = run(*words.split(), "--help")
    assert helped.code == 0 and "Examples" in helped.stdout


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spoton", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"spoton {spoton.__version__}\n"
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("args", "code"), [(["library", "list", "--json"], 0), (["predict", "sst2"], 2)])
def test_closed_streams_are_empty_ones(closed: str, args: list[str], code: int) -> None:
    line = [sys.executable, "-m", "spoton", *args, "--library", "starter"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *line], capture_output=True, text=True, check=False
    )
    assert done.returncode == code and "failed where it should not" not in done.stderr
    assert ("There is no text to answer" in done.stderr) == (code == 2 and "2>&-" not in closed)


def test_every_field_of_a_recipe_has_its_flag() -> None:
    flags = set(inspect.signature(RecipeOptions).parameters) - {"preset", "minutes"}
    assert flags == set(spoton.Recipe.model_fields)


@pytest.fixture
def failing() -> typer.Typer:
    """An app whose only command makes the mistake it is told to."""
    broken = typer.Typer(cls=SpotonGroup)
    broken.callback()(lambda: None)

    @command(broken, "broken fail")
    def fail(kind: str, json: bool = False) -> None:
        if kind == "data":
            raise DataError("Found [3] columns, expected 'text'. Pass --input.")
        if kind == "interrupt":
            raise KeyboardInterrupt
        raise RuntimeError("a bug")

    return broken


def invoke(broken: typer.Typer, *args: str) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(broken, ["fail", *args])


def test_a_mistake_is_one_message_and_exit_code_2(failing: typer.Typer) -> None:
    ran = invoke(failing, "data")
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.stderr == "Error: Found [3] columns, expected 'text'. Pass --input. [E-DATA]\n"


def test_with_json_the_mistake_is_the_document(failing: typer.Typer) -> None:
    import json

    ran = invoke(failing, "data", "--json")
    assert ran.exit_code == 2
    assert json.loads(ran.stdout) == {
        "error": "Found [3] columns, expected 'text'. Pass --input.",
        "kind": "DataError",
        "code": "E-DATA",
    }
    ran = invoke(failing, "--json")
    assert ran.exit_code == 2
    assert (document := json.loads(ran.stdout))["kind"] == "UsageError" and document["code"] == "E-USAGE"


@pytest.mark.parametrize(
    "args",
    [
        ("--nosuch", "--json"),
        ("--json", "--nosuch"),
        ("--json", "doctor"),
        ("--json",),
        ("--nosuch", "doctor", "--json"),
        ("nosuch", "--json"),
        ("study", "nosuch", "--json"),
        ("tune", "--nosuch", "--json"),
    ],
)
def test_with_json_a_wrong_option_anywhere_is_the_document(args: tuple[str, ...], run: Run) -> None:
    ran = run(*args)
    assert ran.code == 2 and "No such" in ran.stderr
    assert (ran.document["kind"], ran.document["code"]) == ("UsageError", "E-USAGE")
    assert ran.document["error"].startswith("No such")


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("tasks", "show", ""), "DATA|TASK"),
        (("serve", "--library", ""), "--library"),
        (("serve", "--library="), "--library"),
        (("serve", "--library", "a", "--library", ""), "--library"),
        (("study", "plan", ""), "FOLDER"),
    ],
)
def test_an_empty_argument_is_refused(args: tuple[str, ...], name: str, run: Run) -> None:
    ran = run(*args, "--json")
    assert (ran.code, ran.document["code"]) == (2, "E-USAGE")
    assert ran.document["error"].startswith(f"Invalid value for {name}: it is empty.")


def test_an_empty_text_among_those_to_answer_is_none_of_them(run: Run) -> None:
    ran = run("predict", "nosuch", "A text.", "", "--json")
    assert ran.document["code"] == "E-LIBRARY"


@pytest.mark.parametrize(
    "args", [("--nosuch",), ("--nosuch", "--", "--json"), ("tune", "a.csv", "--", "--json")]
)
def test_without_json_a_wrong_option_is_on_stderr_alone(args: tuple[str, ...], run: Run) -> None:
    ran = run(*args)
    assert (ran.code, ran.stdout) == (2, "") and ran.stderr


def test_the_traceback_is_there_when_asked_for(failing: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOTON_DEBUG", "1")
    ran = invoke(failing, "data")
    assert ran.exit_code == 2
    assert "Traceback" in ran.stderr


def test_control_c_exits_with_130(failing: typer.Typer) -> None:
    ran = invoke(failing, "interrupt")
    assert ran.exit_code == 130
    assert "Interrupted" in ran.stderr


def test_a_bug_is_a_sentence_and_its_traceback_is_there_when_asked_for(
    failing: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = invoke(failing, "bug")
    assert ran.exit_code == 1 and "Traceback" not in ran.stderr and "Error" in ran.stderr
    monkeypatch.setenv("SPOTON_DEBUG", "1")
    assert "Traceback" in invoke(failing, "bug").stderr
