"""The work folder of a comparison, `NAME.work` next to the prompt it makes: finished parts, kept until the end.

The names in it hash what decides a part, so that a repeated call finds its own parts and no others.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from spoton.locks import sweep
from spoton.tuning.outputs import remove_unfinished, require_free
from spoton.tuning.record import require_place

BUDGET = "budget.json"
"""The steps that were planned for a time limit."""
_HASH = r"[0-9a-f]{16}"
# What the program writes: runs, checkpoints, tests, trials and the budget.
_WRITTEN = re.compile(
    rf"((untuned-|halving-)?{_HASH}\.(json|safetensors)|{_HASH}(\.rate\d+)?\.checkpoint|test-{_HASH}\.json"
    rf"|trial-{_HASH}\.scores|{re.escape(BUDGET)})"
)


def work_folder(out: Path) -> Path:
    """Returns the work folder of the prompt `out`."""
    return out.with_suffix(".work")


def require_out(out: Path, *, overwrite: bool) -> None:
    """Refuses, before a comparison, a place that its prompt may not take.

    Args:
        out: The file of the prompt.
        overwrite: Whether a prompt there is replaced.

    Raises:
        SpotonError: `out` cannot name a prompt, cannot be written, or holds a prompt that is not an unfinished one of
            runs kept next to it.
    """
    require_place(out)
    # Runs that were finished or begun; planned steps and scores of the bare model alone are none.
    begun = any(
        file.suffix in (".checkpoint", ".safetensors") and _WRITTEN.fullmatch(file.name)
        for file in work_folder(out).glob("*")
    )
    require_free(out, overwrite=overwrite, resume=begun)


def finished_parts(out: Path | None) -> str:
    """Returns a sentence on what an interrupted call left, to append to its message; empty if it left nothing."""
    if out is None or not work_folder(out).is_dir():
        return ""
    return f" Finished parts are kept in {work_folder(out)}; the same command goes on from there."


def remove_parts(out: Path) -> None:
    """Removes what interrupted calls left for the prompt `out`, now that it is finished, and nobody else's files."""
    remove_unfinished(out)
    folder = work_folder(out)
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if file.is_file() and _WRITTEN.fullmatch(file.name):
            file.unlink(missing_ok=True)
    sweep(folder)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()
