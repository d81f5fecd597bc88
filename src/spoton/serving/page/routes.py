"""Routes of the pages. Everything they load comes from this server."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, select_autoescape

from spoton.serving.page.facts import facts_of, nearest, score_of
from spoton.serving.page.pictures import learning_curve, similarity_map
from spoton.serving.roster import ServedPrompt
from spoton.serving.service import Service
from spoton.tasks.fill import given_columns
from spoton.tasks.template import template_columns

_templates = Environment(
    loader=PackageLoader("spoton.serving.page"),
    autoescape=select_autoescape(),
    trim_blocks=True,
    lstrip_blocks=True,
)


def add_pages(app: FastAPI, service: Service) -> None:
    """Adds the pages to an application.

    Args:
        app: The application.
        service: The service whose library is shown.
    """
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

    @app.get("/", response_class=HTMLResponse)
    def library() -> str:
        """Shows all prompts: a table, a map, and a box to try them."""
        service.roster.refresh()
        served = service.roster.served
        rows = [
            {"prompt": prompt, "score": score_of(prompt.card), "columns": _columns(prompt)}
            for prompt in served.values()
        ]
        return _templates.get_template("library.html").render(
            base=service.base,
            model=service.model.describe(),
            rows=rows,
            refused=service.roster.refused,
            map=similarity_map(list(served.values())),
        )

    @app.get("/prompts/{name}", response_class=HTMLResponse)
    async def one_prompt(name: str, request: Request) -> str:
        """Shows one prompt: its card, its curve, its neighbours, and code that calls it."""
        prompt = await service.prompt(name)
        columns = _columns(prompt)
        row: object = "A text to answer." if len(columns) <= 1 else {column: "..." for column in columns}
        return _templates.get_template("prompt.html").render(
            base=service.base,
            prompt=prompt,
            facts=facts_of(prompt),
            score=score_of(prompt.card),
            nearest=nearest(prompt, list(service.roster.served.values())),
            curve=learning_curve(prompt.path.with_suffix(".json"), prompt.card),
            url=str(request.base_url).rstrip("/"),
            body=json.dumps({"prompt": name, "inputs": [row]}),
        )


def _columns(prompt: ServedPrompt) -> list[str]:
    """Returns the columns that a row must have, without those that the catalog adds."""
    columns = template_columns(prompt.card.template) if prompt.card.template else []
    given = given_columns(prompt.card.source)
    return [column for column in columns if column not in given]
