"""The record of a run: recipe, versions, hashes, scores and time, as JSON next to its prompt.

It is written last, so its existence means that the run is complete. Before a prompt is replaced, its record is removed.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from spoton.errors import SpotonError
from spoton.files import atomic_write, require_writable
from spoton.prompts.soft_prompt import SoftPrompt

PROMPT_SUFFIX = ".safetensors"
_IN_EVERY_RECORD = {"task", "model", "scores"}


def versions() -> dict[str, str]:
    """Returns the versions of the packages that affect the numbers."""
    names = ("spoton", "torch", "transformers", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Writes a record as readable JSON, atomically.

    Raises:
        SpotonError: The file cannot be written.
    """
    atomic_write(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def require_place(out: Path) -> None:
    """Checks before a run that its prompt, record and curves can be written and replace nobody else's files.

    The name must end in `.safetensors`: record, curves and unfinished work go next to it under other endings.

    Raises:
        SpotonError: The name ends in something else, the file cannot be written, or a file where record or curves
            would go is not of an earlier run: it may be the data of this one.
    """
    if out.suffix != PROMPT_SUFFIX:
        better = out / "prompt" if out.is_dir() else out.with_suffix("")
        raise SpotonError(
            f"{out} cannot be the file of a prompt: expected a name that ends in {PROMPT_SUFFIX}, next to which its "
            f"record and curves go. Use --out {better}{PROMPT_SUFFIX}."
        )
    require_writable(out)
    record, curves = out.with_suffix(".json"), out.with_suffix(".png")
    for file, ours in ((record, _is_record(record)), (curves, out.exists() or record.exists())):
        if file.exists() and not ours:
            raise SpotonError(
                f"{file} exists and is not of an earlier run, but the {'record' if file == record else 'picture'} of "
                f"{out.name} would go there. Choose another --out."
            )


def _is_record(path: Path) -> bool:
    """Returns whether a file is the record of a prompt."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and _IN_EVERY_RECORD <= found.keys()


def save_prompt(prompt: SoftPrompt, out: Path) -> None:
    """Saves the prompt of a run. First removes the record of an earlier run, which describes another prompt.

    Raises:
        SpotonError: The file cannot be written.
    """
    record = out.with_suffix(".json")
    try:
        record.unlink(missing_ok=True)
    except OSError as error:
        raise SpotonError(f"Cannot replace {record}: {error.strerror}. Choose another place.") from error
    prompt.save(out)
