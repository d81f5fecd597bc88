"""The site is built from this checkout: links lead somewhere, nothing is fetched, search finds words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.acceptance.pages import CHECKOUT
from tests.chromium import CHROMIUM, FLAGS

pytest.importorskip("zensical", reason="the site needs spoton[docs]")
pytest.importorskip("mkdocstrings", reason="the site needs spoton[docs]")

SITE = CHECKOUT / "build" / "site"


class Page(HTMLParser):
    """What a page links to, what it loads, and what may be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors = {"", "__top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values.get("id", ""), values.get("name", "")}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag == "link" and values.get("rel") != "canonical":
            self.loads.add(values.get("href", ""))
        if "src" in values:
            self.loads.add(values["src"])


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    """Every page of the site, built anew."""
    build = [sys.executable, str(CHECKOUT / "docs" / "site" / "build.py")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        path: Page(path)
        for path in SITE.rglob("*.html")
        if path.name != "404.html" and "assets" not in path.parts
    }


def test_every_link_leads_to_a_page_and_a_section(site: dict[Path, Page]) -> None:
    broken, followed = [], 0
    for path, page in site.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            followed += 1
            if not target.is_file() or (
                target in site and unquote(parts.fragment) not in site[target].anchors
            ):
                broken.append(f"{path.relative_to(SITE)} -> {link}")
    assert followed > 1000
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: dict[Path, Page]) -> None:
    assert [
        url for page in site.values() for url in page.loads if urlsplit(url).scheme not in ("", "data")
    ] == []


def test_every_command_and_public_name_has_its_place(site: dict[Path, Page]) -> None:
    import spoton

    anchors = {anchor for page in site.values() for anchor in page.anchors}
    names = {anchor.rpartition(".")[2] for anchor in anchors if anchor.startswith("spoton.")}
    assert set(spoton.__all__) - {"__version__"} <= names
    study = (SITE / "reference" / "cli" / "study.html").read_text()
    assert all(f"spoton study {verb}" in study for verb in ("new", "plan", "run", "report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_their_window_and_ask_nobody(
    site: dict[Path, Page], browser: Any, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in ("index", "tutorial", "performance", "reference/cli/adapt", "reference/python/prompts"):
        page.goto((SITE / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] < 128")
        assert dark == (scheme == "dark"), name
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_words_and_lines_have_the_width_that_reading_needs(site: dict[Path, Page], browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((SITE / "experiments.html").as_uri())
    widths = "(these) => these.map((one) => one.getBoundingClientRect().width)"
    cells = page.eval_on_selector_all("article td.words", widths)
    lines = page.eval_on_selector_all("article > p", widths)
    code = page.evaluate("document.querySelector('article').getBoundingClientRect().width")
    context.close()
    assert len(cells) > 5
    assert min(cells) > 120  # in a table that is too wide for the page, a cell of words is no column of words
    assert max(lines) < 800 < code


def test_search_works_without_a_server(site: dict[Path, Page], browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((SITE / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("adafactor", delay=20)
    page.wait_for_selector("a[href*='recipes.html']:visible", timeout=20_000)
    context.close()
