"""README and docs/ say only what is there: commands parse, links lead somewhere, Python compiles or runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command
from typer.testing import CliRunner

from spoton.cli.app import app
from tests.acceptance.pages import CHECKOUT, PAGES, blocks, commands, links, words
from tests.tiny import BAD, GOOD, NOUNS, tiny, tokenizer


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
        "similarity a b --similarity cosine",
    ],
)
def test_a_command_that_is_not_there_does_not_parse(line: str) -> None:
    with pytest.raises(TyperException):
        parse(words(line))


def test_the_page_on_commands_names_every_option() -> None:
    page = (CHECKOUT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--[a-z][a-z0-9-]*", page))
    missing = {
        option for option in _options(get_command(app)) if option.startswith("--") and option not in named
    }
    assert not missing - {
        "--help",
        "--install-completion",
        "--show-completion",
    }  # the shell's: docs/install.md


def _options(command: Any) -> Iterator[str]:
    """Returns the options of a command and of all below it."""
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(command, "commands", {}).values():
        yield from _options(below)


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


def test_the_page_on_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From top to bottom, in a folder with two CSV files and a tiny model in the place of the embedded one."""
    monkeypatch.chdir(tmp_path)
    tiny("llama").network.save_pretrained("smollm2-135m")
    tokenizer().save_pretrained("smollm2-135m")
    for name, prefix in (("reviews", "The"), ("complaints", "Again the")):
        rows = [f"{prefix} {noun} was {word}.,{word in GOOD}" for noun in NOUNS for word in (*GOOD, *BAD)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    names: dict[str, object] = {}
    for block in blocks(CHECKOUT / "docs" / "how-to" / "use-from-python.md", "python"):
        exec(compile(block, "use-from-python.md", "exec"), names)
    assert "with transfer" in capsys.readouterr().out
    assert Path("complaints.safetensors").is_file()


def test_the_page_on_tasks_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command, in a folder with the YAML and CSV files and a tiny model in the place of the embedded one."""
    page = CHECKOUT / "docs" / "how-to" / "add-a-task.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "library"))
    tiny("llama").network.save_pretrained("smollm2-135m")
    tokenizer().save_pretrained("smollm2-135m")
    for block in blocks(page, "yaml"):
        if block.startswith("# "):
            Path(block.splitlines()[0].removeprefix("# ")).write_text(block)
    rows = [(noun, word, word in GOOD) for noun in NOUNS for word in (*GOOD, *BAD)]
    Path("reviews.csv").write_text(
        "title,body,stars\n"
        + "".join(f"A {noun},It was {word}.,{5 if good else 1}\n" for noun, word, good in rows)
    )
    for name, part in (
        ("complaints", rows[:24]),
        ("complaints-dev", rows[24:32]),
        ("complaints-test", rows[32:]),
    ):
        lines = [f"The {noun} was {word}.,{'good' if good else 'bad'}\n" for noun, word, good in part]
        Path(f"{name}.csv").write_text("text,verdict\n" + "".join(lines))
    lines = commands(page, "spoton")
    assert {words(line)[1] for line in lines} >= {
        "tune",
        "evaluate",
        "adapt",
        "retrieve",
        "predict",
        "doctor",
    }
    for line in lines:
        ran = CliRunner().invoke(app, words(line)[1:], catch_exceptions=False)
        assert ran.exit_code == 0, f"{line}\n{ran.output}"
    assert {"my_reviews.safetensors", "complaints.safetensors", "both.safetensors"} <= {
        path.name for path in tmp_path.iterdir()
    }
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


def parse(arguments: list[str]) -> None:
    """Parse a command line as `spoton` would, without running it.

    Raises:
        TyperException: There is no such command or option, a value does not fit, or an argument is missing.
    """
    command, name = get_command(app), "spoton"
    if arguments[0].startswith("--"):  # of the program itself; some, such as --version, print and exit
        assert any(arguments[0] in parameter.opts for parameter in command.params), arguments
        return
    while isinstance(command, TyperGroup):
        found, command, arguments = command.resolve_command(command.context_class(command), arguments)
        name = f"{name} {found}"
    command.make_context(name, arguments)


def test_the_page_on_model_tuning_computes_the_ratio_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    """T5 XXL against 100 tokens: "more than 27,000 times" (SPoT, section 5), from its configuration alone."""
    for block in blocks(CHECKOUT / "docs" / "how-to" / "compare-with-model-tuning.md", "python"):
        exec(compile(block, "compare-with-model-tuning.md", "exec"), {})
    assert int(capsys.readouterr().out) == 27_186


def test_the_dockerfile_names_what_is_there() -> None:
    """It is not built here; its sources exist, and its command line is one that the server takes."""
    text = (CHECKOUT / "Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert sources and all((CHECKOUT / source).exists() for source in sources)
    entry, arguments = (
        json.loads(re.findall(rf"^{word} (\[.*)$", text, re.MULTILINE)[-1]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry[0] == "spoton"
    parse([*entry[1:], *arguments])
