"""Checks the catalog against the Hugging Face Hub: data set, configuration, revision, splits, columns and labels.

Streams the first rows of every split that a task's YAML names, and renders them. Prints one line for each task, and at
the end which tasks failed and why. Exits with 1 if any failed. `make verify-catalog` runs this; it needs a network.
"""

from __future__ import annotations

import argparse
import sys

from spoton.errors import DataError, DownloadError
from spoton.tasks import TaskInfo, list_tasks
from spoton.tasks.catalog import task_info
from spoton.tasks.hub import hub_rows
from spoton.tasks.render import render_rows
from spoton.tasks.sources import Rows


def main() -> None:
    """Checks the named tasks, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", help="only these")
    parser.add_argument("--rows", type=int, default=2, help="tens of rows of each split")
    arguments = parser.parse_args()
    named = [task_info(name) for name in arguments.tasks] or list_tasks()
    asked = [info for info in named if info.dataset is not None]
    failed: list[str] = []
    for info in asked:
        problem = check(info, arguments.rows)
        print(f"{info.name:30}{info.hub}  {problem or 'fine'}", flush=True)
        failed += [info.name] if problem else []
    print(f"\n{len(asked) - len(failed)} of {len(asked)} tasks are as the catalog says.")
    if failed:
        print(f"Failed: {', '.join(failed)}.")
        sys.exit(1)


def check(info: TaskInfo, rows: int) -> str | None:
    """Returns what is wrong with a task, or None."""
    assert info.dataset is not None
    # The rows of one subset may be far from the beginning, so the subset's name is not checked.
    info = info.model_copy(update={"where": {}})
    splits = {str(split): name for split, name in info.splits.items()}
    try:
        found = hub_rows(
            info.dataset,
            config=info.config,
            revision=info.revision,
            splits=splits,
            stream=True,
            shuffle=False,
            max_rows=10 * rows,  # the first rows may have no label
        )
    except DownloadError as error:
        return f"not loaded: {error}"
    except DataError as error:
        return f"splits: {error}"
    try:
        rendered = render_rows(info, Rows(found, f"hub:{info.hub}"), "task")
    except (DataError, KeyError, TypeError) as error:
        columns = ", ".join(next(iter(found.values()))[0])
        return f"columns: {error!r} (the rows have {columns})"
    strange = sorted(
        {
            row.target
            for split in rendered.values()
            for row in split.examples
            if info.labels is not None and row.target not in info.labels
        }
    )
    return f"labels: {', '.join(strange)} are not among {', '.join(info.labels or ())}" if strange else None


if __name__ == "__main__":
    main()
