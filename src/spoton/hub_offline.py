"""A Hugging Face hub that cannot be reached: whether it is so, and how not to wait for it.

Without a network, the hub's client retries for half a minute; in offline mode it reads its cache, or fails, at once.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants


@contextmanager
def hub_or_cache() -> Iterator[str | None]:
    """Within it, the client asks the hub if its host has an address, else the cache alone; yields a host without one.

    A proxy would look for the address by itself, so with one the hub is asked.
    """
    host = urlsplit(constants.ENDPOINT).hostname
    if getproxies() or _has_address(host):
        yield None
        return
    # `datasets` has a copy of the client's switch; whoever has not imported it does not pay for that here.
    switches: list[Any] = [constants]
    if "datasets" in sys.modules:
        switches.append(sys.modules["datasets"].config)
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield host
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _has_address(host: str | None) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
