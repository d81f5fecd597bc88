"""What checks the annotations of functions while tests run, see `tests/conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_typed = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a float, as for mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks every argument and the result of functions whose signature speaks of shapes; leaves others alone."""
    spoken = " ".join(map(str, function.__annotations__.values()))
    shapes = any(word in spoken for word in ("Float[", "Int[", "Prompts"))
    return _typed(function) if shapes else function
