"""The HTTP interface: paths, bodies and errors. `service.py` computes the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

import spoton
from spoton.errors import SpotonError
from spoton.serving import completions
from spoton.serving.api_types import ClassifyRequest, CompletionRequest
from spoton.serving.errors import RequestError, failed, malformed
from spoton.serving.page import add_pages
from spoton.serving.service import Service

_LOOK_SECONDS = 0.5
"""How often the server looks whether the client of a long answer is still there."""
_PATHS = "There are POST /v1/classify and /v1/completions, GET /v1/models, /v1/prompts, /health and /metrics."
"""What a client that asks for another path, such as that of chats, can ask for."""
_CLIENT_LEFT = 499  # as nginx logs it; nobody receives it


def application(service: Service) -> FastAPI:
    """Returns the application without its guards.

    Args:
        service: Computes the answers. It is closed when the application ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    # FastAPI's own documentation pages load scripts from other hosts.
    app = FastAPI(
        title="spoton", version=spoton.__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    _add_errors(app)
    _add_endpoints(app, service)
    _add_state(app, service)
    add_pages(app, service)
    return app


def _add_endpoints(app: FastAPI, service: Service) -> None:
    @app.post("/v1/classify")
    async def classify(request: ClassifyRequest, connection: Request) -> Response:
        """Answers rows: labels with probabilities, or generated text."""
        return await _while_connected(connection, _classified(service, request))

    @app.post("/v1/completions")
    async def complete(request: CompletionRequest, connection: Request) -> Response:
        """Continues texts."""
        completion = await completions.begin(service, request)
        if request.stream:
            return StreamingResponse(completion.chunks(), media_type="text/event-stream")
        return await _while_connected(connection, completion.whole())

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        """Lists the model itself and every prompt, whose parent it is."""
        service.roster.refresh()
        names = [(service.base, None), *((name, service.base) for name in service.roster.served)]
        return JSONResponse(
            {"object": "list", "data": [_model(service, name, parent) for name, parent in names]}
        )

    @app.get("/v1/models/{name:path}")  # the ids of many models have a slash
    async def model(name: str) -> JSONResponse:
        """Describes one model or prompt."""
        if name != service.base:
            await service.prompt(name)
        return JSONResponse(_model(service, name, None if name == service.base else service.base))

    @app.get("/v1/prompts")
    async def prompts() -> JSONResponse:
        """Lists served prompts with their labels, and refused ones with the reason."""
        service.roster.refresh()
        served = [
            {"name": name, "task": one.card.task, "labels": one.card.labels, "length": len(one.value)}
            for name, one in service.roster.served.items()
        ]
        refused = [{"name": one.name, "reason": one.reason} for one in service.roster.refused]
        return JSONResponse({"served": served, "refused": refused})


async def _classified(service: Service, request: ClassifyRequest) -> dict[str, Any]:
    """Returns the answers to a request as one document."""
    names = _names(request, service.limits.inputs)
    start = time.monotonic()
    answers = await service.classify(names, request.inputs, max_tokens=request.max_tokens)
    data = [{"index": index} | asdict(answer) for index, answer in enumerate(answers)]
    milliseconds = round(1000 * (time.monotonic() - start), 3)
    return {"object": "list", "model": service.base, "data": data, "milliseconds": milliseconds}


async def _while_connected(connection: Request, answer: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """Returns the answer as JSON; cancels it if the client leaves, since nobody would read it."""
    work = asyncio.create_task(answer)
    try:
        while not (await asyncio.wait({work}, timeout=_LOOK_SECONDS))[0]:
            if await connection.is_disconnected():
                return Response(status_code=_CLIENT_LEFT)
        return JSONResponse(work.result())
    finally:
        work.cancel()


def _add_state(app: FastAPI, service: Service) -> None:
    """Adds the routes for monitoring."""

    @app.get("/health")
    async def health(request: Request) -> JSONResponse:
        """Reports whether the server accepts requests."""
        stopping = bool(getattr(request.app.state, "guards", None) and request.app.state.guards.draining)
        return JSONResponse(
            {"status": "stopping" if stopping else "ok", "prompts": len(service.roster.served)},
            status_code=503 if stopping else 200,
        )

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """Reports counters for Prometheus."""
        return PlainTextResponse(
            service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )


def _names(request: ClassifyRequest, most: int) -> list[str]:
    """Returns the prompt of every input.

    Raises:
        RequestError: There are too many inputs, or the number of prompts differs.
    """
    count = len(request.inputs)
    if count > most:
        raise RequestError(
            413, f"The request has {count} inputs, at most {most} are accepted. Split it.", "request_too_large",
            "inputs",
        )  # fmt: skip
    if isinstance(request.prompt, str):
        return [request.prompt] * count
    if len(request.prompt) != count:
        raise RequestError(
            400,
            f"There are {len(request.prompt)} prompts for {count} inputs. Give one for all, or one for each.",
            "invalid_value",
            "prompt",
        )
    return request.prompt


def _model(service: Service, name: str, parent: str | None) -> dict[str, Any]:
    """Returns an entry of the list of models."""
    return {
        "id": name, "object": "model", "created": int(service.started), "owned_by": "spoton",
        "root": service.base, "parent": parent,
    }  # fmt: skip


def _add_errors(app: FastAPI) -> None:
    """Answers every error in OpenAI's form."""

    def respond(error: RequestError) -> JSONResponse:
        return JSONResponse(error.to_json(), error.status, error.headers)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(SpotonError)
    async def unusable(request: Request, error: SpotonError) -> JSONResponse:
        return respond(RequestError(400, str(error), "invalid_value"))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(malformed(error.errors()))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        message = f"{error.detail}: {request.method} {request.url.path}. {_PATHS}"
        return respond(RequestError(error.status_code, message, code, headers=dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return respond(failed())
