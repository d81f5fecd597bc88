"""What the README and the pages of docs/ say that can be checked: command lines, links, Python snippets."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]

_OPERATORS = frozenset("|&;<>")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path, program: str) -> list[str]:
    """The lines of console blocks that call a program, those ended by a backslash joined."""
    text = "\n".join(block.replace("\\\n", " ") for block in blocks(page, "console"))
    return re.findall(rf"^\$ ({program} .*)$", text, re.MULTILINE)


def words(line: str) -> list[str]:
    """The words of the first command of a line, as a shell reads them: no comment, nothing behind `|` or `>`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if _OPERATORS.issuperset(word):
            break
        found.append(word)
    return found


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead, as far as that is inside the checkout; without `#section`."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose)]
    return [target for target in targets if target and not re.match(r"[a-z]+:", target)]


def address(process: subprocess.Popen[str]) -> str:
    """Where a server listens, once it does."""
    assert process.stdout is not None
    document = ""
    while not document.endswith("}\n"):
        line = process.stdout.readline()
        assert line, os.strerror(0)
        document += line
    (found,) = re.findall(r'"url": "([^"]+)"', document)
    return found
