"""Reports in a real headless Chromium: every figure is drawn and readable, nothing fails, nothing is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoton.study.analysis.analyse import analyse
from spoton.study.report import write_report
from spoton.study.results.collect import collect
from spoton.study.results.import_results import import_study
from spoton.study.results.study_results import StudyResults
from tests.study.made import made
from tests.study.run.test_scheduler import run
from tests.study.small import MakeStudy

pytest.importorskip("plotly", reason="the HTML report needs spoton[report]")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", "--no-first-run",
]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

# Of each figure: what is drawn that can be seen, and the labels that stick out of it.
LOOK = """() => Object.fromEntries([...document.querySelectorAll(".plot")].map(plot => {
  const frame = plot.getBoundingClientRect();
  const seen = element => { const box = element.getBoundingClientRect(); return box.width > 2 && box.height > 2; };
  const out = element => { const box = element.getBoundingClientRect(); return box.width > 0 && (box.left <
    frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1); };
  return [plot.id.slice("figure-".length), {
    drawn: [...plot.querySelectorAll(".heatmaplayer image, .scatterlayer .point, .scatterlayer .js-line")].filter(seen)
      .length,
    cut: [...plot.querySelectorAll("text")].filter(out).map(text => text.textContent),
    texts: [...plot.querySelectorAll("text")].map(text => text.textContent),
  }];
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def look(browser: Any, results: StudyResults, folder: Path) -> dict[str, Any]:
    """The figures of the report as a reader has them."""
    page_file, *_ = write_report(analyse(results), folder / "report.html", png=False)
    context = browser.new_context(viewport={"width": 1360, "height": 900}, offline=True)
    page = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on(
        "console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_selector("body[data-drawn=yes]", timeout=120_000)
    found: dict[str, Any] = page.evaluate(LOOK)
    context.close()
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    for name, figure in found.items():
        assert figure["drawn"] > 0, name
        assert figure["cut"] == [], name
    return found


def test_a_study_that_ran(browser: Any, make_study: MakeStudy, tmp_path: Path) -> None:
    folder = make_study()
    assert not run(folder).left
    found = look(browser, collect(folder), tmp_path)
    assert {"transfer", "retrieval", "similarity-average_tokens"} <= set(found)
    assert {"films.csv", "books.csv", "songs.csv"} <= set(found["transfer"]["texts"])


def test_a_study_that_was_imported(browser: Any, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("source,target,mean,std\nBASELINE,CB,92.7,1.9\nMNLI,CB,97.0,1.1\nC4,CB,83.1,5.7\n")
    found = look(browser, import_study(scores, seeds_averaged=3), tmp_path)
    assert set(found) == {"transfer"}
    assert {"MNLI", "C4", "CB", "+58.9*", "\N{MINUS SIGN}131.5*"} <= set(found["transfer"]["texts"])


def test_many_tasks_with_long_and_odd_names(browser: Any, tmp_path: Path) -> None:
    sources = [f"a_task_with_a_rather_long_name_{i}" for i in range(14)] + ["<b>bold</b>", "1", "2"]
    found = look(browser, made(sources, [f"target_of_some_length_{i}" for i in range(10)], (0, 1)), tmp_path)
    assert len(found) == 6
    assert {"<b>bold</b>", "1", "2"} <= set(found["transfer"]["texts"])
    titles = [text for text in found["scatter"]["texts"] if "target_of_some_length" in text]
    assert len(titles) == 10 and all("r = " in title for title in titles)


def test_a_broken_page_is_noticed(browser: Any, tmp_path: Path) -> None:
    """That what the tests above would see is seen: a figure that is not drawn says why."""
    page_file, *_ = write_report(analyse(made()), tmp_path / "report.html", png=False)
    page_file.write_text(page_file.read_text().replace("DecompressionStream", "NoSuchStream"))
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(page_file.as_uri())
    page.wait_for_selector("text=could not be drawn", timeout=60_000)
    assert any("NoSuchStream" in error for error in errors)
    page.close()
