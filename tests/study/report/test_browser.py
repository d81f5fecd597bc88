"""Reports in a real headless Chromium: every figure is drawn and readable, nothing fails, nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spoton.study.analysis.analyse import analyse
from spoton.study.report import write_report
from spoton.study.results.collect import collect
from spoton.study.results.import_results import ImportedFiles, import_study
from spoton.study.results.score_tables import ReadOptions
from spoton.study.results.study_results import StudyResults
from tests.chromium import CHROMIUM, FLAGS, needs_chromium
from tests.study.made import made
from tests.study.run.test_scheduler import run
from tests.study.small import MakeStudy

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")


pytestmark = needs_chromium

# Of each figure: how much is drawn, its words, those that stick out of it, and upright ones that overlap.
LOOK = """() => Object.fromEntries([...document.querySelectorAll("figure")].map(figure => {
  const svg = figure.querySelector("svg"), frame = svg.getBoundingClientRect(), box = figure.querySelector(".wide");
  const words = [...svg.querySelectorAll("text")].map(word => ({
    text: word.textContent, upright: !word.hasAttribute("transform"), place: word.getBoundingClientRect(),
  })).filter(word => word.text && word.place.width > 0);
  const out = ({place}) => place.left < frame.left - 1 || place.right > frame.right + 1 ||
    place.top < frame.top - 1 || place.bottom > frame.bottom + 1;
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const upright = words.filter(word => word.upright);
  return [figure.id.slice("figure-".length), {
    drawn: svg.querySelectorAll("path, use").length, texts: words.map(word => word.text),
    cut: words.filter(out).map(word => word.text), scrolls: box.scrollWidth > box.clientWidth + 1,
    overlap: upright.flatMap((a, i) => upright.slice(i + 1).filter(b => meet(a.place, b.place)).map(
      b => a.text + " / " + b.text)),
  }];
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def look(browser: Any, results: StudyResults, folder: Path, width: int = 1400) -> dict[str, Any]:
    """The figures of the report as a reader has them."""
    page_file, *_ = write_report(analyse(results), folder / "report.html", files=False)
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on(
        "console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    found: dict[str, Any] = page.evaluate(LOOK)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # only boxes scroll sideways
    context.close()
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    for name, figure in found.items():
        assert figure["drawn"] > 10, name
        assert figure["cut"] == [] and figure["overlap"] == [], name
    return found


def test_a_study_that_ran(browser: Any, make_study: MakeStudy, tmp_path: Path) -> None:
    folder = make_study()
    assert not run(folder).left
    found = look(browser, collect(folder), tmp_path)
    assert {"transfer", "gains", "retrieval", "similarity-average_tokens"} <= set(found)
    names = {text.removesuffix(" (not learned)") for text in found["transfer"]["texts"]}
    assert {"films.csv", "books.csv", "songs.csv"} <= names


def test_a_study_that_was_imported(browser: Any, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("source,target,mean,std\nBASELINE,CB,92.7,1.9\nMNLI,CB,97.0,1.1\nC4,CB,83.1,5.7\n")
    results = import_study(ImportedFiles(scores), ReadOptions(seeds_averaged=3))
    found = look(browser, results, tmp_path, width=800)
    assert set(found) == {"transfer", "gains"}
    assert {"MNLI", "C4", "CB", "+58.9*", "\N{MINUS SIGN}131.5*"} <= set(found["transfer"]["texts"])


@pytest.mark.parametrize("width", [1400, 800])
def test_many_tasks_with_long_and_odd_names(browser: Any, tmp_path: Path, width: int) -> None:
    sources = [f"a_task_with_a_rather_long_name_{i}" for i in range(14)] + ["<b>bold</b>", "1", "$x_2$"]
    targets = [f"target_of_some_length_{i}" for i in range(20)]
    families = {task: f"family {i % 5}" for i, task in enumerate([*sources, *targets])}
    results = replace(
        made(sources, targets, (0, 1)), families=families, learned_sources={"1": False, "$x_2$": True}
    )
    found = look(browser, results, tmp_path, width)
    assert set(found) == {
        "transfer", "gains", "gains-2", "scatter", "scatter-2", "scatter-3", "retrieval",
        *(f"similarity-{metric}" for metric in ("average_tokens", "per_token_average", "maximum_token")),
    }  # fmt: skip
    assert found["transfer"]["scrolls"]  # rather than being shrunk until nobody can read it
    assert {"<b>bold</b>", "1 (not learned)", "$x_2$", "family 0"} <= set(found["transfer"]["texts"])
    maps = [found[f"similarity-{metric}"]["texts"] for metric in ("average_tokens", "maximum_token")]
    assert maps[0][:37] == maps[1][:37]  # one order of tasks


def test_a_label_that_is_cut_is_noticed(browser: Any, tmp_path: Path) -> None:
    """That what the tests above would see is seen."""
    page_file, *_ = write_report(analyse(made()), tmp_path / "report.html", files=False)
    text = re.sub(
        r'viewBox="0 0 ([\d.]+) ', lambda match: f'viewBox="40 0 {match[1]} ', page_file.read_text()
    )
    page_file.write_text(text)
    page = browser.new_page()
    page.goto(page_file.as_uri())
    assert page.evaluate(LOOK)["transfer"]["cut"]
    page.close()
