"""README and docs/ say only what is there: their commands parse, their links lead somewhere, their Python compiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from spoton.cli.app import app
from tests.acceptance.pages import CHECKOUT, PAGES, blocks, commands, links, words


def test_there_is_something_to_check() -> None:
    lines = [line for page in PAGES for line in commands(page, "spoton")]
    assert len(PAGES) > 5 and len(lines) > 5
    assert links(CHECKOUT / "README.md") and links(CHECKOUT / "docs" / "index.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for line in commands(page, "spoton"):
        parse(words(line)[1:])


@pytest.mark.parametrize(
    "line",
    [
        "library lists",
        "tune",
        "tune reviews.csv --out p.safetensors --rate 1",
        "similarity a b --metric cosine",
    ],
)
def test_a_command_that_is_not_there_does_not_parse(line: str) -> None:
    with pytest.raises(TyperException):
        parse(words(line))


def test_words_are_those_of_the_first_command() -> None:
    assert words("""spoton predict p "a | b" '{"t": 1}' # why""") == [
        "spoton",
        "predict",
        "p",
        "a | b",
        '{"t": 1}',
    ]
    assert words("spoton tasks list --json > tasks.json") == ["spoton", "tasks", "list", "--json"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for number, block in enumerate(blocks(page, "python"), start=1):
        compile(block, f"{page.name}, block {number}", "exec")


def parse(arguments: list[str]) -> None:
    """Parse a command line as `spoton` would, without running it.

    Raises:
        TyperException: There is no such command or option, a value does not fit, or an argument is missing.
    """
    command, name = get_command(app), "spoton"
    while isinstance(command, TyperGroup):
        found, command, arguments = command.resolve_command(command.context_class(command), arguments)
        name = f"{name} {found}"
    command.make_context(name, arguments)
