"""A page for each command, made from the command itself: its help, arguments, options and examples."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from spoton.cli.app import app


def command_pages() -> dict[str, str]:
    """Returns the Markdown of each page by name: `adapt.md`, `study.md` with all commands below `spoton study`, ..."""
    root = get_command(app)
    context = root.make_context("spoton", ["--help"], resilient_parsing=True)
    return {
        f"{name}.md": "\n".join(_sections(command, context, f"spoton {name}", level=1))
        for name, command in sorted(root.commands.items())  # type: ignore[attr-defined]
    }


def _sections(command: Any, context: Any, name: str, *, level: int) -> Iterator[str]:
    """Yields the section of a command, and the sections of the commands below it."""
    yield f"{'#' * level} `{name}`\n\n{_text(command.help)}\n"
    if isinstance(command, TyperGroup):
        for below, one in command.commands.items():
            yield from _sections(one, context, f"{name} {below}", level=level + 1)
        return
    yield f"```console\n$ {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    panels: dict[str, list[Any]] = {}
    for parameter in command.get_params(context):
        if parameter.get_help_record(context) and "--help" not in parameter.opts:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(parameter)
    examples = re.findall(r"^\$ (.*)$", command.epilog or "", re.MULTILINE)
    if examples:
        lines = "".join(f"$ {example}\n" for example in examples)
        yield f"{_title('Examples', level)}\n\n```console\n{lines}```\n"
    for panel, parameters in panels.items():
        heading = "Argument" if panel == "Arguments" else "Option"
        yield f"{_title(panel, level)}\n\n| {heading} | Meaning |\n|---|---|"
        yield from (_row(parameter, context) for parameter in parameters)
        yield ""


def _title(words: str, level: int) -> str:
    """Returns the title of a part; parts of subcommands are not headings, so that the contents list commands only."""
    return f"**{words}**" if level > 1 else f"## {words}"


def _row(parameter: Any, context: Any) -> str:
    names, text = parameter.get_help_record(context)
    return f"| `{names}` | {_text(text)} |"


def _text(text: str | None) -> str:
    """Returns help as Markdown: Markdown's marks are escaped, and words in backticks stay code."""
    parts = re.split(r"(`[^`]*`)", " ".join((text or "").split()))
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([|*_\[\]])", r"\\\1", html.escape(text, quote=False))
