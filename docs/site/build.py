"""Builds the site: `python docs/site/build.py`, which is `make docs`.

The pages are collected in build/docs, and the site is built in build/site. Most pages are files of docs/. The others
are made here: a page for each command, the Python reference, the tutorial from its notebook, and the changelog and
contributing guide from the root. A broken link, a page that the navigation lacks, or any Zensical warning fails the
build.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat

sys.path.insert(0, str(Path(__file__).parent))
from command_pages import command_pages
from python_pages import python_pages

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS, PAGES, SITE = CHECKOUT / "docs", CHECKOUT / "build" / "docs", CHECKOUT / "build" / "site"
CONFIG = CHECKOUT / "zensical.toml"

ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
"""Files in the checkout's root, and the pages made from them."""


CELL = re.compile(r"<td((?: style[^>]*)?)>(.*?)</td>", flags=re.DOTALL)
FEW_WORDS = 40  # letters of a cell that may become a narrow column

SHIM, SHIM_ELSEWHERE = "iframe-worker.js", "https://unpkg.com/iframe-worker/shim"


class SiteError(Exception):
    """A page cannot be part of the site in its present form."""


def main() -> int:
    """Builds the site from scratch.

    Returns:
        Zensical's exit code, or 1.
    """
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        put_together()
        check_navigation()
    except SiteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(CONFIG)]
    done = subprocess.run(command, env=environment, check=False).returncode
    if not done:
        finish_pages()
        sys.stdout.write(f"The site is in {SITE}: open index.html, no server is needed.\n")
    return done


def finish_pages() -> None:
    """Removes the need for a server (one external script, the link of the logo); marks short code and cells."""
    shutil.copy(DOCS / "site" / SHIM, SITE / "assets")
    logo = re.compile(r'<a href="([./]*)" title="spoton"')
    for page in SITE.rglob("*.html"):
        text = page.read_text().replace(SHIM_ELSEWHERE, os.path.relpath(SITE / "assets" / SHIM, page.parent))
        text = logo.sub(lambda match: f'<a href="{match[1] or "."}/index.html" title="spoton"', text)
        text = re.sub(r"<code>([^<\s]{2,20})</code>", r'<code class="short">\1</code>', text)
        text = re.sub(
            r"<td( style[^>]*)?>([-+\u2212]?\d[^<]{0,23})</td>", r'<td class="number"\1>\2</td>', text
        )
        page.write_text(CELL.sub(marked_if_words, text))


def marked_if_words(cell: re.Match[str]) -> str:
    """Returns a cell of a table, marked if it holds more than a few words."""
    shown = re.sub(r"<[^>]*>", "", cell[2])
    return f'<td class="words"{cell[1]}>{cell[2]}</td>' if len(shown) > FEW_WORDS else cell[0]


def put_together() -> None:
    """Writes all pages, and the files that they show or link to, to build/docs."""
    for page in sorted(DOCS.rglob("*.md")):
        write(page.relative_to(DOCS), with_links(page.read_text(), page))
    for name, target in ROOT_PAGES.items():
        if target != "index.md":  # the README is for readers without the site
            write(Path(target), with_links((CHECKOUT / name).read_text(), CHECKOUT / name))
    for folder, pages in (("cli", command_pages()), ("python", python_pages())):
        for name, text in pages.items():
            write(Path("reference") / folder / name, text)
    write(Path("tutorial.md"), notebook(DOCS / "tutorial.ipynb"))
    shutil.copy(DOCS / "site" / "theme.css", PAGES)


def write(page: Path, text: str) -> None:
    (PAGES / page).parent.mkdir(parents=True, exist_ok=True)
    (PAGES / page).write_text(text)


def notebook(path: Path) -> str:
    """Returns a notebook as a page, with its outputs; writes its pictures next to the page."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(with_links(cell.source, path))
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [shown(output, f"{path.stem}-{len(parts)}.png") for output in cell.outputs]
    return "\n\n".join(part for part in parts if part)


def shown(output: Any, picture: str) -> str:
    """Returns an output of a cell as Markdown: text as it was printed, or a picture."""
    if "text" in output:
        return f"```text\n{output.text.rstrip()}\n```"
    if "image/png" in output.data:
        (PAGES / picture).write_bytes(base64.b64decode(output.data["image/png"]))
        return f"![]({picture})"
    return f"```text\n{output.data['text/plain'].rstrip()}\n```"


def with_links(text: str, page: Path) -> str:
    """Returns a page whose links fit the site, and copies the files that they lead to.

    A folder has no page, so a link to a folder becomes its path in the repository.

    Raises:
        SiteError: A link is broken.
    """

    def link(match: re.Match[str]) -> str:
        words, target, section = match[1], match[2], match[3] or ""
        place = (page.parent / target).resolve()
        if not place.exists():
            raise SiteError(f"{page}: the link to {target} leads nowhere.")
        if place.is_dir():
            return f"{words} (`{place.relative_to(CHECKOUT)}` in the repository)"
        if place.parent == CHECKOUT and place.name in ROOT_PAGES:
            shown = PAGES / ROOT_PAGES[place.name]
        elif place.is_relative_to(DOCS):
            shown = PAGES / place.relative_to(DOCS)
            if place.suffix == ".ipynb":
                shown = shown.with_suffix(".md")
            elif place.suffix != ".md":
                shown.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(place, shown)
        else:
            return f"{words} (`{place.relative_to(CHECKOUT)}` in the repository)"
        here = PAGES / (ROOT_PAGES[page.name] if page.parent == CHECKOUT else page.relative_to(DOCS))
        return f"[{words}]({os.path.relpath(shown, here.parent)}{section})"

    pattern = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
    fenced = re.split(r"(^[ ]*```.*?^[ ]*```$)", text, flags=re.MULTILINE | re.DOTALL)  # code does not change
    return "".join(part if index % 2 else pattern.sub(link, part) for index, part in enumerate(fenced))


def check_navigation() -> None:
    """Compares the pages with the navigation.

    Raises:
        SiteError: A page is missing, or is missing in the navigation.
    """
    listed = set(names(tomllib.loads(CONFIG.read_text())["project"]["nav"]))
    there = {str(page.relative_to(PAGES)) for page in PAGES.rglob("*.md")}
    if listed != there:
        raise SiteError(
            f"The navigation in {CONFIG.relative_to(CHECKOUT)} lacks {sorted(there - listed)} "
            f"and lists what is not there: {sorted(listed - there)}."
        )


def names(entries: Any) -> list[str]:
    """Returns the pages of a part of the navigation."""
    if isinstance(entries, str):
        return [entries]
    values = entries.values() if isinstance(entries, dict) else entries
    return [name for value in values for name in names(value)]


if __name__ == "__main__":
    sys.exit(main())
