"""A user's own task, described by a YAML file in the catalog's vocabulary.

Reads and checks the description, which then serves like a catalog entry.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spoton.errors import DataError
from spoton.fields import expected, place, shown_value, unknown
from spoton.parsing import MalformedError, parse_yaml
from spoton.reading import read_text, reason
from spoton.tasks.metrics import require_known
from spoton.tasks.t5_text import PROCESSORS
from spoton.tasks.task_info import TaskInfo
from spoton.tasks.template import compile_template

_LARGEST = 4 * 2**20  # bytes of a task file
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?")


def read_definition(path: Path | str) -> TaskInfo:
    """Reads the YAML file of one task.

    Args:
        path: The file. Paths in its `data_files` are relative to its folder.

    Raises:
        DataError: The file is missing or not YAML, or a field is unknown, missing, or of the wrong kind; the message
            names the field, and what was found and expected.
    """
    path = Path(path)
    try:
        found = parse_yaml(read_text(path, most=_LARGEST))
    except OSError as error:
        raise DataError(
            f"Cannot read the task file {path}: {reason(error)}. Give the YAML file of a task."
        ) from error
    except UnicodeError as error:
        raise DataError(f"The task file {path} is not UTF-8: {error}. Save it as UTF-8.") from error
    except MalformedError as error:
        raise DataError(f"{path} is not YAML: {error}. Put templates and label words into quotes.") from error
    if not isinstance(found, dict):
        raise DataError(
            f"{path} holds {_shown(found)}; expected a mapping with name, doc_to_text, doc_to_target and metrics."
        )
    try:
        info = TaskInfo.model_validate({str(field): value for field, value in found.items()})
    except ValidationError as error:
        raise DataError(f"{path}: {'; '.join(_problems(error))}.") from error
    _require_whole(info, path)
    files = {split: str(path.parent / file) for split, file in info.data_files.items()}
    return info.model_copy(update={"data_files": files})


def read_definitions(paths: Sequence[Path | str], known: Callable[[str], bool]) -> tuple[TaskInfo, ...]:
    """Reads several files.

    Args:
        paths: The files.
        known: Returns whether the catalog already has a task of a name.

    Raises:
        DataError: As in `read_definition`; or two tasks have the same name.
    """
    infos: list[TaskInfo] = []
    taken: dict[str, str] = {}
    for path in paths:
        info = read_definition(path)
        for name in (info.name, *info.aliases):
            if known(name) or name in taken:
                raise DataError(
                    f"{path}: name: {name!r} is the name of a task {taken.get(name, 'of the catalog')}; expected "
                    "a name of its own. Choose another."
                )
            taken[name] = f"of {path}"
        infos.append(info)
    return tuple(infos)


def _require_whole(info: TaskInfo, path: Path) -> None:
    """Refuses definitions that would otherwise fail only when rows are rendered."""
    for name in (info.name, *info.aliases):
        if not _NAME.fullmatch(name):
            raise DataError(
                f"{path}: name: found {name!r}; expected letters, digits, '_', '-' and '.', such as my_reviews."
            )
    if len(info.texts) != len(info.targets):
        raise DataError(
            f"{path}: doc_to_target: found {len(info.targets)} templates for {len(info.texts)} of doc_to_text; "
            "expected one for each."
        )
    fields = {
        "doc_to_text": info.texts,
        "doc_to_target": info.targets,
        "doc_to_group": (info.doc_to_group or "",),
        "doc_to_question": (info.doc_to_question or "",),
    }
    for field, templates in fields.items():
        for template in templates:
            _named(path, field, partial(compile_template, template))
    _named(path, "metrics", lambda: require_known(info.metrics))
    _named(path, "main_metric", lambda: require_known([*info.metrics, info.main_metric or info.metrics[0]]))
    if info.process_docs is not None and info.process_docs not in PROCESSORS:
        raise DataError(
            f"{path}: process_docs: found {info.process_docs!r}; expected one of {', '.join(PROCESSORS)}."
        )
    if info.data_files and "train" not in info.data_files:
        raise DataError(
            f"{path}: data_files: found {', '.join(info.data_files)}; expected at least train, next to which "
            "validation and test may be given."
        )


def _named(path: Path, field: str, check: Callable[[], object]) -> None:
    try:
        check()
    except DataError as error:
        raise DataError(f"{path}: {field}: {error}") from error


def _problems(error: ValidationError) -> list[str]:
    """Returns one sentence per field; alternatives of a field are reported as one."""
    by_field: dict[str, list[ErrorDetails]] = defaultdict(list)
    for problem in error.errors():
        by_field[str(problem["loc"][0]) if problem["loc"] else "file"].append(problem)
    return [_problem(field, problems) for field, problems in by_field.items()]


def _problem(field: str, problems: Sequence[ErrorDetails]) -> str:
    first = problems[0]
    if first["type"] == "missing":
        if len(first["loc"]) > 1:
            return f"{field}: has no {first['loc'][-1]}, which is needed"
        return f"{field} is missing; expected at least name, doc_to_text, doc_to_target and metrics"
    if first["type"] == "extra_forbidden":
        known = list(TaskInfo.model_fields) if len(first["loc"]) == 1 else []
        return f"{place(first)} is not a field of a task{unknown(field, known)}"
    # The alternative that fits best has its problem deepest.
    deepest = max(problems, key=lambda problem: len(problem["loc"]))
    value, wanted = deepest["input"], expected(deepest)
    quotes = ", in quotes" if wanted == "text" and isinstance(value, bool | int | float) else ""
    return f"{place(deepest)}: found {_shown(value)}; expected {wanted}{quotes}"


def _shown(value: Any) -> str:
    """Returns a value as YAML reads it, with its kind."""
    if value is None or isinstance(value, dict | list):
        return shown_value(value)
    kind = {bool: "true or false", str: "text", int: "a number", float: "a number"}.get(
        type(value), "no text"
    )
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({kind})"
