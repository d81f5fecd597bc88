"""The record of a run: recipe, versions, hashes, scores and time, as JSON beside its prompt.

It is written last, so that its existence means the run is complete.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from spoton.files import atomic_write


def versions() -> dict[str, str]:
    """Versions of what decides numbers."""
    names = ("spoton", "torch", "transformers", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Writes a record as readable JSON, atomically.

    Raises:
        SpotonError: The file cannot be written.
    """
    atomic_write(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    return path
