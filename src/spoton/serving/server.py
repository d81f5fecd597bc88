"""Runs the server: on SIGTERM, SIGHUP or Ctrl-C it finishes requests in flight and refuses new ones."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from spoton.errors import ServingError
from spoton.serving.guards import Guards, is_loopback
from spoton.serving.http import application
from spoton.serving.service import Service

# How long requests in flight may take after a stop signal, in addition to their own deadline.
_GRACE_SECONDS = 5.0
# New connections get 503 for at least this long, so that a load balancer gets an answer instead of an error.
_REFUSE_SECONDS = 1.0
# Headers only; h11 refuses larger ones with 431 or 400.
_HEADER_BYTES = 32_768


class Server(uvicorn.Server):
    """uvicorn with a graceful stop.

    Args:
        service: Computes the answers.
        host: Address to listen at.
        port: Port to listen at; 0: any free port.
        token: Token that requests must send.

    Attributes:
        guards: Checks before every request.
        on_start: Called once the server listens.

    Raises:
        ServingError: Other machines could reach the server, and there is no token.
    """

    def __init__(self, service: Service, *, host: str, port: int, token: str | None = None) -> None:
        if token is None and not is_loopback(host):
            raise ServingError(
                f"{host} can be reached from other machines, and there is no token. Give --token-file, or listen at "
                "127.0.0.1."
            )
        app = application(service)
        hosts = frozenset({"127.0.0.1", "localhost", "[::1]", host})
        self.guards = Guards(app, service.limits, service.metrics, token=token, hosts=hosts)
        app.state.guards = self.guards
        self._limit = service.limits.seconds + _GRACE_SECONDS
        self._told: float | None = None
        self.on_start: Callable[[], None] = lambda: None
        super().__init__(
            uvicorn.Config(
                self.guards,
                host=host,
                port=port,
                log_level="warning",
                server_header=False,
                access_log=False,
                h11_max_incomplete_event_size=_HEADER_BYTES,
                timeout_graceful_shutdown=int(_GRACE_SECONDS),
                http="h11",
                ws="none",
                lifespan="on",
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn, which does not handle SIGHUP. The signal stays ignored under `nohup`."""
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        with super().capture_signals():
            is_main = threading.current_thread() is threading.main_thread()
            if hangup is None or not is_main or signal.getsignal(hangup) is signal.SIG_IGN:
                yield
                return
            before = signal.signal(hangup, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(hangup, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the graceful stop at the first signal; stops at once at the second."""
        if self._told is not None:
            self.should_exit = self.force_exit = True
        self._told = self._told or time.monotonic()
        self.guards.draining = True

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn; called ten times a second."""
        if self._told is not None:
            passed = time.monotonic() - self._told
            done = self.guards.in_flight == 0 and passed >= _REFUSE_SECONDS
            self.should_exit = self.should_exit or done or passed > self._limit
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn; then reports that the server listens.

        Raises:
            ServingError: It cannot listen at its address; uvicorn would end the process with a line of its log.
        """
        try:
            await super().startup(sockets)
        except SystemExit as error:
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise
            raise ServingError(_not_listening(self.config.host, self.config.port, cause)) from cause
        if self.started:
            self.on_start()

    @property
    def address(self) -> str:
        """The address it listens at, once it has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _not_listening(host: str, port: int, error: OSError) -> str:
    """Returns the message for an address that the server cannot listen at."""
    # The text of asyncio's own error repeats the address; names that cannot be resolved have negative numbers.
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else error.strerror or str(error)
    return (
        f"Cannot listen at {host}, port {port}: {why[:1].lower()}{why[1:]}. Choose another --port (0: any free one) or "
        "--host, or stop the program that listens there."
    )
