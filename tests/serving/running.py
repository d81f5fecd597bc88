"""A real server on a free port, in a thread of its own; a tiny model and a library of prompts for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.prompts.card import Calibration
from spoton.serving.limits import Limits
from spoton.serving.server import Server
from spoton.serving.service import Service
from tests.tiny import WIDTH, draw

TEMPLATE = "{{ text }}\nVerdict:"
# Labels of one token and of several, such that some begin alike.
LABELS: dict[str, list[str] | None] = {
    "short": ["yes", "no"],
    "long": ["yes maybe", "no", "yes no maybe so"],
    "many": ["yes", "no", "maybe", "yes yes", "no no", "other"],
    "nested": ["yes", "yes and no"],
    "open": None,
}
# A calibration, and labels scored by the mean over their tokens.
EXTRA: dict[str, dict[str, Any]] = {
    "many": {"calibration": Calibration(bias=[0.5, -0.5, 0.0, 1.0, -1.0, 0.25], temperature=2.0, rows=10)},
    "long": {"recipe": {"label_score": "mean"}},
}
LENGTHS = {"short": 4, "long": 1, "many": 7, "nested": 4, "open": 3}


def patient(**limits: Any) -> Limits:
    """Limits of a server that a busy machine may take its time over: nothing fails because of a second."""
    return Limits(**({"seconds": 300, "template_seconds": 60, "body_seconds": 60} | limits))


def get(url: str, **options: Any) -> httpx.Response:
    """As httpx, which waits for five seconds unless it is told otherwise."""
    return httpx.get(url, **({"timeout": 60} | options))


def post(url: str, **options: Any) -> httpx.Response:
    """As httpx, which waits for five seconds unless it is told otherwise."""
    return httpx.post(url, **({"timeout": 60} | options))


def a_prompt(model: FrozenModel, name: str, **card: Any) -> SoftPrompt:
    """A random prompt for a model."""
    facts: dict[str, Any] = {
        "name": name, "task": f"{name}_task", "model": model.name, "model_fingerprint": model.fingerprint,
        "labels": LABELS.get(name, ["yes", "no"]), "template": TEMPLATE, "source": "file:toy.csv",
    }  # fmt: skip
    seed = sum(name.encode())
    return SoftPrompt(
        draw(LENGTHS.get(name, 3), WIDTH, seed=seed), Card(**(facts | card)), draw(2, WIDTH, seed=seed + 1)
    )


def a_library(model: FrozenModel, folder: Path) -> PromptLibrary:
    """One prompt of each kind of labels."""
    library = PromptLibrary(folder)
    for name in LABELS:
        library.add(a_prompt(model, name, **EXTRA.get(name, {})))
    return library


@contextmanager
def running(service: Service, *, token: str | None = None) -> Iterator[Server]:
    """A server that answers."""
    server = Server(service, host="127.0.0.1", port=0, token=token)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until and thread.is_alive()
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def serving(model: FrozenModel, library: PromptLibrary, limits: Limits | None = None) -> Iterator[str]:
    """The address of a server over one library."""
    with running(Service(model, [library], limits or patient())) as server:
        yield server.address
