"""Errors of requests, in the form of OpenAI's API: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: The HTTP status.
        message: What was found, what was expected, and what to do.
        code: A word for programs to read.
        param: The wrong field of the request, if any.
        headers: Additional headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    def to_json(self) -> dict[str, Any]:
        """Returns the body of the answer."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

_KIND = re.compile(r"[\[-]|^str$")
"""Matches the parts of a problem's place that name a kind of value, such as `list[constrained-str]`, and no field."""


def malformed(problems: Sequence[Any]) -> RequestError:
    """Returns the error for a body that is not JSON, or not what the path expects.

    Args:
        problems: What pydantic found. Of a field that may be of several kinds it lists a problem for each kind; one
            about a value comes before those that only name another kind.
    """
    first = next((one for one in problems if not one["type"].endswith("_type")), problems[0])
    if first["type"] == "json_invalid":
        told = f"The body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}."
        return RequestError(400, told, "invalid_value")
    place = [str(part) for part in first["loc"][1:] if not _KIND.search(str(part))]  # it begins with "body"
    where = f"{'.'.join(place)}: " if place else ""
    return RequestError(400, f"{where}{first['msg']}.", "invalid_value", place[0] if place else None)


def queue_full(waiting: int, seconds: int) -> RequestError:
    """Returns the error for a full queue.

    Args:
        waiting: How many inputs wait.
        seconds: When to try again.
    """
    return RequestError(
        429,
        f"{waiting} inputs are waiting already. Try again in {seconds} s, or send fewer at once.",
        "queue_full",
        headers={"Retry-After": str(seconds)},
    )


def too_late(seconds: float) -> RequestError:
    """Returns the error for a request that did not finish in time."""
    return RequestError(
        504, f"The request took longer than {seconds:g} s. Send fewer inputs, or try again later.", "timeout"
    )


def failed() -> RequestError:
    """Returns the error for a request that met a fault of the server, whose log has it."""
    return RequestError(500, "The server failed on this request; its log says why.", "internal_error")


def draining() -> RequestError:
    """Returns the error for a server that is about to stop."""
    return RequestError(
        503, "The server is shutting down. Send the request to another one, or later.", "shutting_down",
        headers={"Retry-After": "5", "Connection": "close"},
    )  # fmt: skip
