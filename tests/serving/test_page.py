"""The page in a real headless Chromium: at two widths, nothing fails, nothing is asked of anybody else."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoton.prompts import PromptLibrary
from spoton.serving.page.facts import wilson_interval
from spoton.serving.service import Service
from tests.chromium import CHROMIUM, FLAGS, needs_chromium
from tests.serving.running import LABELS, a_library, a_prompt, get, patient, post, running
from tests.tiny import tiny

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")


HOSTILE = '<img src=x onerror="alert(1)">'
# What sticks out of the page to the right.
TOO_WIDE = """() => [...document.querySelectorAll("main *")].filter(one => !one.closest(".wide, pre, svg") &&
  one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(one => one.outerHTML)"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> PromptLibrary:
    model = tiny("llama")
    library = a_library(model, tmp_path_factory.mktemp("page") / "prompts")
    scores = {"test": {"accuracy": 80.0}}
    facts: dict[str, Any] = {
        "family": "sentiment", "scores": scores, "splits": {"test": 100}, "metric": "accuracy", "data_hash": "d",
        "recipe": {"steps": 3},
    }  # fmt: skip
    library.add(a_prompt(model, "reviews", **facts))
    history = [{"step": float(step), "loss": 3.0 - step} for step in range(1, 4)] + [
        {"step": 3.0, "validation": 70.0}
    ]
    record = {"history": history, "data_hash": "d", "recipe": {"steps": 3}}
    library.path("reviews").with_suffix(".json").write_text(json.dumps(record))
    library.add(
        a_prompt(model, "hostile", task=HOSTILE, family=HOSTILE, notes=HOSTILE, labels=[HOSTILE, "no"])
    )
    library.add(a_prompt(model, "foreign", model_fingerprint="f00d"))
    pair = "{{ first }} and {{ second }}\nVerdict:"
    library.add(a_prompt(model, "pair", template=pair))
    return library


@pytest.fixture(scope="module")
def url(library: PromptLibrary) -> Iterator[str]:
    with running(Service(tiny("llama"), [library], patient())) as server:
        yield server.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def test_what_a_prompt_says_of_itself_is_text(url: str) -> None:
    for path in ("/", "/prompts/hostile", "/prompts/pair"):
        page = get(f"{url}{path}")
        assert page.status_code == 200 and "<img" not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]


def test_the_code_on_the_page_of_a_prompt_runs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = html.unescape(get(f"{url}/prompts/pair").text)
    curl, *python = re.findall(r"<pre>((?:curl|import|from).*?)</pre>", page, re.DOTALL)
    for block in python:
        exec(compile(block, "page", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] in ("yes", "no")
    words = shlex.split(curl.replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert post(words[1], json=body).json()["data"][0]["answer"] in ("yes", "no")


def test_the_interval_of_a_share() -> None:
    low, high = wilson_interval(80.0, 100)
    assert (low, high) == pytest.approx(
        (71.11, 86.66), abs=0.01
    )  # 0.7111 to 0.8666, as published for 80 of 100
    assert wilson_interval(100.0, 10)[1] == pytest.approx(100)


@needs_chromium
@pytest.mark.parametrize("width", [1400, 800])
def test_library_and_prompt(browser: Any, url: str, width: int, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("SPOTON_SCREENSHOTS", tmp_path))
    context = browser.new_context(viewport={"width": width, "height": 1000})
    page = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on(
        "console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    served = {*LABELS, "reviews", "hostile", "pair"}
    assert set(page.locator("#library tbody tr td:first-child").all_inner_texts()) == served
    row = page.locator("#library tr", has_text="reviews").inner_text()
    assert "80.0" in row and "71.1 to 86.7" in row
    assert page.locator("#map circle").count() >= len(served)
    assert page.locator("summary").inner_text() == "1 not served"
    page.locator("#text").fill("The film was lovely.")
    for name in ("many", "short", "open"):
        page.locator(f'input[value="{name}"]').check()
    page.locator("button").click()
    # The first prompt is checked from the start.
    page.locator(".answer h3 span", has_text="ms").nth(3).wait_for()
    shares = page.locator(".answer", has_text="short").locator(".bar span").all_inner_texts()
    assert len(shares) == 2 and sum(float(share.removesuffix(" %")) for share in shares) == pytest.approx(
        100, abs=0.2
    )
    assert page.evaluate(TOO_WIDE) == []
    page.screenshot(path=pictures / f"library-{width}.png", full_page=True)
    page.locator("#library a", has_text="reviews").click()
    assert page.locator("h1").inner_text() == "reviews"
    assert page.locator(".curve polyline").count() == 2
    assert "curl" in page.locator("main").inner_text() and page.locator("meter").count() == len(served) - 1
    assert page.evaluate(TOO_WIDE) == []
    page.screenshot(path=pictures / f"prompt-{width}.png", full_page=True)
    context.close()
    assert told == [] and all(one.startswith((url, "data:")) for one in asked)


@needs_chromium
def test_long_names_of_prompts_fit_the_page(browser: Any, tmp_path: Path) -> None:
    model = tiny("llama")
    long, library = (
        "support_tickets_by_team_and_by_urgency_of_the_year_2024",
        PromptLibrary(tmp_path / "prompts"),
    )
    facts = {
        "family": "topic",
        "scores": {"test": {"accuracy": 80.0}},
        "splits": {"test": 100},
        "metric": "accuracy",
    }
    for number in range(3):
        library.add(a_prompt(model, f"{long}_version_{number}", **facts))
    with running(Service(model, [library], patient())) as server:
        for width in (1400, 800, 400):
            page = browser.new_page(viewport={"width": width, "height": 1000})
            page.goto(server.address)
            assert page.evaluate(TOO_WIDE) == []
            row = page.locator("#library tbody tr").first.bounding_box()
            assert row is not None and row["height"] < 130
            page.locator("#library a").first.click()
            page.wait_for_url("**/prompts/**")  # and for its style, without which every table is too wide
            assert page.evaluate(TOO_WIDE) == []
            page.close()


@needs_chromium
def test_what_goes_wrong_is_said_where_the_answer_would_be(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    page.locator("input:checked").uncheck()
    page.locator('input[value="pair"]').check()
    page.locator("#text").fill("One text.")
    page.locator("button").click()
    page.wait_for_selector(".answer .error")
    assert "first, second" in page.locator(".answer .error").inner_text()
    page.locator("#text").fill('{"first": "A", "second": "B"}')
    page.locator("button").click()
    page.wait_for_selector(".answer .bar")
    page.close()
