"""Errors: everything raised on purpose can be caught in one place."""

import inspect

from spoton import errors


def test_every_error_is_a_spoton_error_and_says_when_it_is_raised() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) >= 8
    for cls in classes:
        # Ctrl-C stays a KeyboardInterrupt, so that no `except Exception` swallows it.
        assert issubclass(cls, KeyboardInterrupt if cls is errors.Interrupted else errors.SpotonError)
        assert cls.__doc__
