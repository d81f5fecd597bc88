"""Running the server: listens, and on SIGTERM, SIGHUP or Ctrl-C finishes what is in flight and refuses the rest."""

from __future__ import annotations

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

# How long requests in flight may take once the server has been told to stop, besides their own deadline.
_GRACE_SECONDS = 5.0
# New connections are answered with 503 for at least this long, so that a load balancer gets an answer and not an error.
_REFUSE_SECONDS = 1.0
# Headers alone; h11 refuses larger ones with 431 or 400.
_HEADER_BYTES = 32_768


class Server(uvicorn.Server):
    """uvicorn, with another way to stop.

    Args:
        service: What answers.
        host: Where to listen.
        port: At which port; 0: any.
        token: What requests have to bring.

    Attributes:
        guards: What stands in front of every request.
        on_start: Called once the server listens.

    Raises:
        ServingError: Others could reach the server, and there is no token.
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
        """See uvicorn, which does not know that a terminal closes; `nohup` has told to ignore that."""
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
        """The first signal starts the end, a second one ends at once."""
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
        """See uvicorn; then tells that the server listens."""
        await super().startup(sockets)
        if self.started:
            self.on_start()

    @property
    def address(self) -> str:
        """Where it listens, once it has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
