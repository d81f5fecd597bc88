"""Files behind URLs: one form for the errors of every file system's driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from spoton.errors import SpotonError, first_line

_MOST = 300  # characters of a driver's message; some quote a whole page


@contextmanager
def reached(place: str, failure: type[SpotonError], *own: type[Exception]) -> Iterator[None]:
    """Turns any error inside the block into one message, since each driver raises types of its own.

    Args:
        place: What the block reads or writes, as the message begins: "The study s3://bucket/study".
        failure: The error to raise.
        own: Errors that pass unchanged.

    Raises:
        SpotonError: A `failure`, for any other error.
    """
    try:
        yield
    except own:
        raise
    except Exception as error:
        raise failure(
            f"{place} cannot be used: {first_line(error)[:_MOST]}. Check the address, your rights there, and whether "
            "it can be reached from here."
        ) from error
