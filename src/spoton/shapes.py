"""Shapes in annotations: `Float[Tensor, "K P D"]` is a stack of K prompts of P rows of width D.

A letter is the same number in all arguments and the result of one call, `_` is any number, and `{len(batch)}` is
computed from the arguments. If jaxtyping was imported before this package, as by its import hook (which tests turn on,
see `tests/conftest.py`), these are its names. Otherwise they are `typing.Annotated`: text for the reader, which costs
nothing and checks nothing. Functions that refuse wrong shapes with their own error say `Tensor`.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    from typing import Annotated as Float
    from typing import Annotated as Int
else:
    from jaxtyping import Float, Int

__all__ = ["Float", "Int"]
