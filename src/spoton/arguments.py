"""What a caller of the Python API passed by mistake: the kind of an argument, checked before any work is done.

A notebook has no type checker, so the usual mix-ups (a name instead of what it names, a folder instead of a library)
get a message with the next step. Values are checked where they are used.
"""

from __future__ import annotations

from numbers import Integral

from spoton.errors import SpotonError

_LONGEST = 60  # characters of a text, in a message


def require_kind(
    value: object, kind: type | tuple[type, ...], name: str, error: type[SpotonError], expected: str
) -> None:
    """Refuses a value of another kind.

    Args:
        value: What was passed.
        kind: What it has to be.
        name: Name of the argument.
        error: What is raised.
        expected: What was expected, and the next step: the end of the message.

    Raises:
        SpotonError: Of the type `error`.
    """
    if not isinstance(value, kind):
        raise error(f"{name} is {shown(value)}; expected {expected}")


def shown(value: object) -> str:
    """Returns a text or number as it is, and the type of everything else, whose text may fill pages."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}...")
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"of type {type(value).__name__}"


def is_count(value: object) -> bool:
    """Returns whether a value is a whole number of at least 1, of Python or numpy; True is not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
