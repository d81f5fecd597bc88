"""Errors of drivers: one message, whatever a driver raises."""

from __future__ import annotations

import pytest

from spoton.errors import StudyError, first_line
from spoton.remote import reached


def test_any_error_becomes_one_message_of_one_line() -> None:
    with (
        pytest.raises(
            StudyError, match=r"^The study s3://b cannot be used: no rights\. Check the address"
        ) as caught,
        reached("The study s3://b", StudyError),
    ):
        raise RuntimeError("no rights\nand a page of HTML")
    assert isinstance(caught.value.__cause__, RuntimeError) and "HTML" not in str(caught.value)


def test_long_messages_are_cut() -> None:
    with pytest.raises(StudyError, match=f": {'x' * 300}\\. Check"), reached("It", StudyError):
        raise OSError("x" * 10_000)


def test_own_errors_and_interrupts_pass() -> None:
    for error in (FileNotFoundError("gone"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reached("It", StudyError, FileNotFoundError):
            raise error
        assert caught.value is error


def test_an_error_without_words_is_named_by_its_type() -> None:
    assert first_line(TimeoutError()) == "TimeoutError" and first_line(ValueError(" \n a\nb")) == "a"
