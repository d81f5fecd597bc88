"""Detects that the Hugging Face Hub is unreachable, and avoids waiting for it.

Without a network, the Hub's client retries for half a minute; in offline mode it reads its cache or fails at once.
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
    """Inside the block, the client uses only its cache if the Hub's host does not resolve; yields that host, else None.

    A proxy resolves the address by itself, so with a proxy the Hub is always asked.
    """
    host = urlsplit(constants.ENDPOINT).hostname
    if getproxies() or _has_address(host):
        yield None
        return
    # `datasets` has its own copy of the client's switch; importing it only for this would be slow.
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
