"""Every error spoton raises on purpose, in one place.

Each is a mistake that the user can correct, so each message says what was found, what was expected, and what to do
next. The command line prints the message and the short code of its class, which docs/reference/errors.md explains,
and exits with code 2.

Bugs do not belong here: a broken invariant inside spoton stays a `ValueError`, an `AssertionError` or whatever
Python raises, with its traceback.
"""

from typing import ClassVar


class SpotonError(Exception):
    """A mistake the user can correct.

    Attributes:
        code: Short code of the class, as listed in the documentation.
    """

    code: ClassVar[str] = "E-PLACE"


class DataError(SpotonError):
    """A task's examples, columns, labels or splits cannot be used.

    Attributes:
        option: `input` or `target`, if its column must be named; a terminal can ask for it.
        columns: The columns that exist.
    """

    code = "E-DATA"

    def __init__(self, message: str, *, option: str = "", columns: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.option, self.columns = option, columns


class PromptError(SpotonError):
    """A soft prompt is missing, damaged, of the wrong shape, or belongs to another model."""

    code = "E-PROMPT"


class PromptNotFoundError(PromptError):
    """The prompt file does not exist; another process may have just removed it."""

    code = "E-PROMPT-MISSING"


class ModelError(SpotonError):
    """A frozen model cannot be found, loaded, or used in this way."""

    code = "E-MODEL"


class LibraryError(SpotonError):
    """A prompt library cannot do what was requested: a name is taken or unknown, or the library is read-only."""

    code = "E-LIBRARY"


class RecipeError(SpotonError):
    """A recipe holds a value, or a combination of values, that cannot be tuned with."""

    code = "E-RECIPE"


class DownloadError(SpotonError):
    """A file could not be fetched, or what arrived is not the file that was expected."""

    code = "E-DOWNLOAD"


class DivergenceError(SpotonError):
    """Tuning produced a loss or a prompt that is not finite."""

    code = "E-DIVERGED"


class StudyError(SpotonError):
    """A study's file, folder or cells cannot be used."""

    code = "E-STUDY"


class ServingError(SpotonError):
    """A server cannot be started in this way."""

    code = "E-SERVING"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run, raised after the progress has been saved; the message says where."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
