"""Checks before every request: authorization, size, and whether the server still accepts requests.

Plain ASGI around the whole application, so that no route can bypass it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spoton.serving.errors import RequestError, draining, failed
from spoton.serving.limits import Limits
from spoton.serving.metrics import Metrics

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Paths that metrics count by name; clients can make up any other path, so those are counted together.
_COUNTED = (
    "/",
    "/v1/classify",
    "/v1/completions",
    "/v1/models",
    "/v1/prompts",
    "/health",
    "/metrics",
)
# A load balancer requests this without a token, and while the server stops.
_OPEN = "/health"


class Guards:
    """Wraps an application with the checks.

    Args:
        app: The application.
        limits: Bounds on a request.
        metrics: Counts requests.
        token: Token that every request must send. None: the server is reachable from this machine only.
        hosts: Allowed names in the `Host` header where there is no token: a page of another site in a browser on this
            machine must not read this server under its own name (DNS rebinding).

    Attributes:
        in_flight: Number of requests that are being answered.
        draining: Whether new requests are refused.
    """

    def __init__(
        self, app: App, limits: Limits, metrics: Metrics, *, token: str | None, hosts: frozenset[str]
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._token, self._hosts = token, hosts
        self.in_flight = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, or the start and end of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, path = time.monotonic(), scope["path"]
        counted = path if path in _COUNTED else "other"
        status: list[int] = []

        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
                message["headers"] = [*message.get("headers", ()), *_ALWAYS]
            await send(message)

        self.in_flight += 1
        try:
            self._require_welcome(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _replayed(body, receive), watched)
        except RequestError as error:
            await _answer(error, watched)
        except Exception:
            if status:
                raise  # the answer has begun, so only ending the connection is possible; the server logs it
            _log.exception("A request failed.")
            await _answer(failed(), watched)
        finally:
            self.in_flight -= 1
            self._metrics.requests.labels(counted, str(status[0] if status else 0)).inc()
            self._metrics.latency.labels(counted).observe(time.monotonic() - start)

    def _require_welcome(self, scope: Scope) -> None:
        """Checks host, token, draining and type of the body.

        Raises:
            RequestError: The request is refused.
        """
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        if self._token is None and _host_name(headers.get("host", "")) not in self._hosts:
            raise RequestError(
                403, f"This server answers to {', '.join(sorted(self._hosts))} only. Use one of these names.",
                "wrong_host",
            )  # fmt: skip
        if scope["path"] == _OPEN:
            return
        if self._token is not None and not _brings(headers.get("authorization", ""), self._token):
            raise RequestError(
                401, "This server wants its token. Send `Authorization: Bearer TOKEN`.", "invalid_api_key",
                headers={"WWW-Authenticate": 'Bearer, Basic realm="spoton: any name, the token as password"'},
            )  # fmt: skip
        if self.draining:
            raise draining()
        if scope["method"] == "POST":
            # Forms of other sites can send text without a preflight request, but not this type.
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise RequestError(
                    415, f"The body is {kind or 'of no type'}; expected application/json.", "wrong_type"
                )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Returns the whole body.

        Raises:
            RequestError: It is too large or arrives too slowly.
        """
        limit = self._limits.body_bytes
        too_large = RequestError(
            413, f"The body is larger than {limit} bytes. Send fewer inputs at once.", "request_too_large",
            headers={"Connection": "close"},
        )  # fmt: skip
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and value.isdigit() and int(value) > limit:
                raise too_large

        async def read() -> bytes:
            parts: list[bytes] = []
            size = 0
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return b""
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise too_large
                if not message.get("more_body"):
                    return b"".join(parts)

        try:
            return await asyncio.wait_for(read(), self._limits.body_seconds)
        except TimeoutError as error:
            raise RequestError(
                408, f"The body did not come within {self._limits.body_seconds:g} s. Send it again.", "timeout",
                headers={"Connection": "close"},
            ) from error  # fmt: skip


# Pages may load from this server only.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def _brings(authorization: str, token: str) -> bool:
    """Returns whether a header holds the token, as bearer or as the password that a browser asks for."""
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    # Constant time, so that the duration does not reveal how much was right.
    return hmac.compare_digest(given.encode(), token.encode())


def _host_name(host: str) -> str:
    """Returns a `Host` header without its port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host


def is_loopback(host: str) -> bool:
    """Returns whether a listening address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that replays the body, then passes on what follows: the end of the connection."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(error: RequestError, send: Send) -> None:
    """Sends an error as the answer."""
    body = json.dumps(error.to_json()).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **error.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
