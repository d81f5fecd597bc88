"""The net at the command line: what nobody foresaw is a sentence, an exit code and a report."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from spoton.cli.failures import FAULT, USER_ERROR, describe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.EMFILE]
)
def test_what_a_user_can_correct(number: int, cache: Path) -> None:
    message, code = describe(OSError(number, os.strerror(number), "data.csv"))
    assert code == USER_ERROR and "Cannot use data.csv: " in message and "permissions" in message
    assert not cache.exists()


def test_a_fault_leaves_a_report(cache: Path) -> None:
    try:
        {}["nowhere"]
    except KeyError as error:
        message, code = describe(error)
    (report,) = (cache / "reports").iterdir()
    assert code == FAULT and "KeyError" in message and str(report) in message and "Traceback" not in message
    text = report.read_text()
    assert "Traceback" in text and "test_a_fault_leaves_a_report" in text and "torch " in text


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_says_what_to_make_smaller(error: Exception) -> None:
    message, code = describe(error)
    assert code == FAULT and "--batch-size" in message


def test_a_report_that_cannot_be_written_is_not_another_fault(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file in the way")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    message, code = describe(ValueError("x" * 5000))
    assert code == FAULT and "report is in" not in message and len(message) < 600
