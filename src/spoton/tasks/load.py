"""Loads the task that a user names: a path, a catalog task, a Hub data set, or a mixture of them."""

import errno
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from spoton.arguments import require_kind
from spoton.errors import DataError, DownloadError
from spoton.reading import is_file
from spoton.tasks.catalog import is_task, load_task, task_info
from spoton.tasks.data_spec import DataSpec
from spoton.tasks.hub import load_hub_task
from spoton.tasks.load_files import load_task_file, load_task_folder
from spoton.tasks.mixture import mix, mixture_members, mixture_name
from spoton.tasks.own_tasks import read_definitions
from spoton.tasks.task import Task
from spoton.tasks.task_info import TaskInfo

HUB = "hub:"
MIXTURE_PREFIX = "mixture:"
_HUB_ID = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def resolve_task(
    spec: str | Path,
    data: DataSpec | None = None,
    *,
    task_files: Sequence[Path | str] = (),
    on_message: Callable[[str], None] | None = None,
    **options: Any,
) -> Task:
    """Loads the task that `spec` names.

    Args:
        spec: The path of a file, or of a folder with one file per split; or the name or alias of a catalog task; or
            `hub:owner/name`, or `owner/name`; or `mixture:glue` or another mixture of the paper, or `mixture:` and any
            of the former, separated by commas. An existing path is never looked up on the Hub.
        data: How to read rows.
        task_files: YAML files of the user's own tasks, which `spec` may name like catalog tasks.
        on_message: Called before a download of bundled data starts.
        **options: Fields of `DataSpec`; they override `data`.

    Raises:
        DataError: `spec` is none of these, an option is unknown or does not apply to it, or the rows cannot be used.
        DownloadError: The rows cannot be fetched.

    Examples:
        >>> resolve_task("reviews.csv", input="text", labels=["bad", "good"])  # doctest: +SKIP
    """
    require_kind(
        spec, (str, Path), "The task's rows or name", DataError,
        "the path of a file or the name of a task. Save rows in memory first: "
        "pandas.DataFrame(rows).to_csv('rows.csv', index=False)",
    )  # fmt: skip
    chosen = DataSpec.of(data, options)
    return _sampled(_resolved(str(spec), chosen, read_definitions(task_files, is_task), on_message), chosen)


def described_task(spec: str, *, task_files: Sequence[Path | str] = ()) -> TaskInfo | None:
    """Returns the description in the YAML file of the task that `spec` names; None if it names no such task.

    Reads no rows.

    Args:
        spec: As in `resolve_task`.
        task_files: As in `resolve_task`.

    Raises:
        DataError: A task file cannot be used.
    """
    own = read_definitions(task_files, is_task)
    return task_info(spec, own) if not is_file(spec) and is_task(spec, own) else None


def has_forms(spec: str, *, task_files: Sequence[Path | str] = ()) -> bool:
    """Returns whether `spec` names data with several forms: a task described by a YAML file, or a mixture.

    Raises:
        DataError: A task file cannot be used.
    """
    return spec.startswith(MIXTURE_PREFIX) or described_task(spec, task_files=task_files) is not None


def _resolved(
    spec: str, data: DataSpec, own: Sequence[TaskInfo], on_message: Callable[[str], None] | None
) -> Task:
    path = Path(spec)
    if spec.startswith(MIXTURE_PREFIX):
        data.require_for("a mixture", spec)
        return _mixture(spec, data, own, on_message)
    _require_name(spec)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        raise DataError(
            f"{spec} is a YAML file; expected a task or its data. If it describes a task, give it with --task-file, "
            "and the task's name here."
        )
    if path.exists() and not path.is_dir():  # a pipe, too, which is refused as one
        data.require_for("a file", spec)
        return load_task_file(path, data, on_message=on_message)
    if is_task(spec, own):
        if path.is_dir() and on_message:
            on_message(f"{spec} is read as the task of that name; the folder is ./{spec}.")
        data.require_for("a bundled task", spec)
        return _bundled(spec, data, own, on_message)
    if path.is_dir():
        data.require_for("a folder", spec)
        return load_task_folder(path, data, on_message=on_message)
    if spec.startswith(HUB) or (_HUB_NAME.fullmatch(spec) and not path.suffix):
        data.require_for("a data set on the Hub", spec)
        return load_hub_task(spec.removeprefix(HUB), data)
    if path.suffix or "/" in spec:
        return load_task_file(path)  # raises: it does not exist
    return load_task(spec, own=own)  # raises with the nearest names


def _require_name(spec: str) -> None:
    """Refuses an invalid name, before the file system or the Hub's client fails on it."""
    with suppress(ValueError):  # a null byte, which other checks report
        try:
            Path(spec).stat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise DataError(
                    f"{spec[:60]!r}... has {len(spec):,} characters, more than a name or path may have. Give a file, a "
                    "folder, a task or a data set of the Hub."
                ) from error
    if spec.startswith(HUB) and not _HUB_ID.fullmatch(spec.removeprefix(HUB)):
        raise DataError(
            f"{spec!r} does not name a data set on the Hub: expected {HUB}owner/name. A folder is given without {HUB}"
        )


def _bundled(
    name: str, data: DataSpec, own: Sequence[TaskInfo], on_message: Callable[[str], None] | None
) -> Task:
    return load_task(
        name,
        data.split_seed,
        own=own,
        data_dir=data.data_dir,
        protocol=data.protocol,
        prefix=data.prefix,
        form=data.form,
        max_rows=data.max_rows,
        on_message=on_message,
    )


def _sampled(task: Task, data: DataSpec) -> Task:
    """Returns the task with the requested sizes and weights."""
    if data.k_shot is not None:
        task = task.k_shot(data.k_shot, data.split_seed)
    if (data.train_size, data.validation_size, data.test_size) != (None, None, None):
        task = task.limited(data.train_size, data.validation_size, data.test_size, data.split_seed)
    return task.balanced() if data.class_weights == "balanced" else task


def _mixture(
    spec: str, data: DataSpec, own: Sequence[TaskInfo], on_message: Callable[[str], None] | None
) -> Task:
    """Loads the members of a mixture and combines them into one task."""
    seed = data.split_seed
    name = spec.removeprefix(MIXTURE_PREFIX)
    members: list[Task] = []
    missing: list[str] = []
    for member in mixture_members(name):
        try:
            if is_task(member, own) and not Path(member).is_file():
                members.append(_bundled(member, data, own, on_message))
            else:
                members.append(_resolved(member, DataSpec(split_seed=seed, form=data.form), own, on_message))
        except DownloadError:
            if not data.available_only:
                raise
            missing.append(member)
    if not members:
        raise DownloadError(f"No source has the rows of any member of {spec}: {', '.join(missing)}.")
    mixed = mix(
        mixture_name(name, [task.name for task in members]),
        members,
        sizes=_published(members, own) if data.mixing_sizes == "published" else None,
        cap=data.mixing_cap,
        temperature=data.mixing_temperature,
        seed=seed,
    )
    if not missing:
        return mixed
    return replace(mixed, notes=(*mixed.notes, f"Left out, for want of rows: {', '.join(missing)}."))


def _published(members: Sequence[Task], own: Sequence[TaskInfo]) -> list[int]:
    """Returns each task's published size, or its actual size where none was published."""
    published = [
        task_info(task.name, own).train_size if is_task(task.name, own) else None for task in members
    ]
    return [size or len(task.train) for size, task in zip(published, members, strict=True)]
