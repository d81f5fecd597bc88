"""Errors of requests, in the form of OpenAI's API: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from spoton.fields import place, sentence


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


def malformed(problems: Sequence[ErrorDetails]) -> RequestError:
    """Returns the error for a body that is not JSON, or not what the path expects.

    Args:
        problems: What pydantic found; each place begins with "body".
    """
    first = problems[0]
    if first["type"] == "json_invalid":
        told = f"The body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}."
        return RequestError(400, told, "invalid_value")
    inside = [one | {"loc": one["loc"][1:]} for one in problems]
    return RequestError(400, sentence(inside), "invalid_value", place(inside[0]).partition(".")[0] or None)


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
