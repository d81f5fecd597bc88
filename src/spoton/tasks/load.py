"""From what a user writes to a task: a path, the name of a task of the catalog, or a data set on the Hub."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spoton.errors import DataError
from spoton.tasks.catalog import is_task, load_task
from spoton.tasks.files import load_task_file
from spoton.tasks.hub import load_hub_task
from spoton.tasks.task import Task

HUB = "hub:"


def resolve_task(spec: str, *, on_message: Callable[[str], None] | None = None, **arguments: Any) -> Task:
    """Load the task that `spec` names.

    Args:
        spec: The path of a file; or the name or an alias of a task of the catalog; or `hub:owner/name`, or
            `owner/name`.
        on_message: Told before a download of bundled data starts.
        **arguments: For `load_task_file`, `load_task` or `load_hub_task`, whichever it is.

    Raises:
        DataError: `spec` is none of these, or an argument does not apply to what it is; and as the three
            raise.
    """
    path = Path(spec)
    if path.is_file():
        return _call(load_task_file, spec, "a file", arguments)
    if is_task(spec):
        return _call(load_task, spec, "a bundled task", {**arguments, "on_message": on_message})
    if spec.startswith(HUB) or (spec.count("/") == 1 and not path.suffix and spec[0] not in "./~"):
        return _call(load_hub_task, spec.removeprefix(HUB), "a data set on the Hub", arguments)
    if path.is_dir() or path.suffix or "/" in spec:
        return load_task_file(path)  # raises: it is a folder, or not there
    return load_task(spec)  # raises with the nearest names


def _call(load: Callable[..., Task], spec: str, what: str, arguments: dict[str, Any]) -> Task:
    strange = sorted(arguments.keys() - inspect.signature(load).parameters.keys())
    if strange:
        verb = "applies" if len(strange) == 1 else "apply"
        raise DataError(f"{spec} is {what}, to which {' and '.join(strange)} never {verb}. Leave it out.")
    return load(spec, **arguments)
