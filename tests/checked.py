"""What checks the annotations of functions while tests run, see `tests/conftest.py`."""

from __future__ import annotations

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# `Self` can be checked where whole classes are decorated, and jaxtyping's hook decorates functions.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
