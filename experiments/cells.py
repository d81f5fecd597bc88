"""Cells of long experiments: each is a JSON file, runs once in the first process that takes it, and resumes.

The command lines of these experiments share their first options, and their tables one way of writing scores.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Says whether to run a cell here: it has no result, and no living process works on it.

    The lock ends with its process, unlike a file. Once the result is written, the checkpoint next to it is removed.

    Args:
        path: Path of the result, which the caller writes.
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not path.exists()
        if path.exists():
            path.with_suffix(".checkpoint").unlink(missing_ok=True)
    finally:
        lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def cell_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a command line with the options of every experiment that writes cells; each adds its own.

    Args:
        description: The docstring of the experiment, shown as it stands.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder with <task>/train.jsonl; not given: SPOTON_DATA_DIR")
    parser.add_argument("--threads", type=int, default=2, help="processor threads of this process")
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    return parser


def spread(scores: Sequence[float]) -> str:
    """Returns mean and standard deviation of some scores in words; a single score alone, and nothing for none.

    Examples:
        >>> spread([80.0, 84.0]), spread([80.0]), spread([])
        ('82.0 ± 2.8', '80.0', '')
    """
    if len(scores) < 2:
        return "".join(f"{score:.1f}" for score in scores)
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"
