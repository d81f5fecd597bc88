"""Takes the README's picture of the page: the starter library, and one text answered with four of its prompts.

    python -m experiments.serving.picture

Needs Chromium. The picture shows the machine's latencies at that moment, so take it on a quiet machine.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from spoton.models import load_model
from spoton.prompts import starter_library
from spoton.serving.server import Server
from spoton.serving.service import Service

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "serve.png"
TEXT = "I waited two weeks for this blender, and it broke on the first day. The shop does not even answer my mails."
PROMPTS = ("product_sentiment", "sst2", "subj", "tweet_eval_emotion")


def main() -> None:
    """Starts a server, asks it twice, and takes the picture of the second answers."""
    service = Service(load_model(), [starter_library()])
    server = Server(service, host="127.0.0.1", port=0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.05)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(server.address)
        page.locator("#text").fill(TEXT)
        page.locator("input:checked").uncheck()
        for name in PROMPTS:
            page.locator(f'input[value="{name}"]').check()
        for _ in range(2):  # the first time includes computing the prompts' keys
            page.locator("button").click()
            page.locator(".answer h3 span", has_text="ms").nth(len(PROMPTS) - 1).wait_for()
        below = page.locator("#map").bounding_box()
        assert below is not None  # the map is the last part of the page
        clip = {"x": 0, "y": 0, "width": 1400, "height": below["y"]}
        page.screenshot(path=PICTURE, full_page=True, clip=clip)
        browser.close()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
