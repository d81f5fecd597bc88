"""From what a user writes to a task: a path, a task of the catalog, a data set on the Hub, or a mixture of them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spoton.errors import DataError, DownloadError
from spoton.tasks.catalog import is_task, load_task, task_info
from spoton.tasks.files import load_task_file
from spoton.tasks.hub import load_hub_task
from spoton.tasks.mixture import CAP, mix, mixture_members, named_mixtures
from spoton.tasks.own_tasks import read_definitions
from spoton.tasks.task import Task
from spoton.tasks.task_info import Form, TaskInfo

HUB = "hub:"
MIXTURE = "mixture:"


def resolve_task(
    spec: str,
    *,
    task_files: Sequence[Path | str] = (),
    form: Form = "t5",
    on_message: Callable[[str], None] | None = None,
    **arguments: Any,
) -> Task:
    """Load the task that `spec` names.

    Args:
        spec: The path of a file; or the name or an alias of a task of the catalog; or `hub:owner/name`, or
            `owner/name`; or `mixture:glue` or another mixture of the paper, or `mixture:` and any of the former
            with commas between them.
        task_files: YAML files of the user's own tasks, which `spec` may name as it may those of the catalog.
        form: Of tasks described by a YAML file; see `load_task`. `form_for` gives that of a model. Other rows have
            one form only.
        on_message: Told before a download of bundled data starts.
        **arguments: For `load_task_file`, `load_task`, `load_hub_task` or `load_mixture`, whichever it is.

    Raises:
        DataError: `spec` is none of these, or an argument does not apply to what it is; and as the three
            raise.
    """
    return _resolved(spec, read_definitions(task_files, is_task), form, on_message, arguments)


def described_task(spec: str, *, task_files: Sequence[Path | str] = ()) -> TaskInfo | None:
    """What the YAML file of the task that `spec` names says; None where `spec` is no task of the catalog or user.

    Reads no rows.

    Args:
        spec: As in `resolve_task`.
        task_files: As in `resolve_task`.

    Raises:
        DataError: A task file cannot be used.
    """
    own = read_definitions(task_files, is_task)
    return task_info(spec, own) if not Path(spec).is_file() and is_task(spec, own) else None


def has_forms(spec: str, *, task_files: Sequence[Path | str] = ()) -> bool:
    """Whether the form matters to what `spec` names: a task described by a YAML file, or a mixture.

    Raises:
        DataError: A task file cannot be used.
    """
    return spec.startswith(MIXTURE) or described_task(spec, task_files=task_files) is not None


def _resolved(
    spec: str,
    own: Sequence[TaskInfo],
    form: Form,
    on_message: Callable[[str], None] | None,
    arguments: dict[str, Any],
) -> Task:
    path = Path(spec)
    more = {"own": own, "form": form, "on_message": on_message}
    if spec.startswith(MIXTURE):
        return _call(load_mixture, spec, "a mixture", {**arguments, **more})
    if path.suffix in (".yaml", ".yml") and path.is_file():
        raise DataError(
            f"{spec} is a YAML file; expected a task or its data. If it describes a task, give it with --task-file, "
            "and the task's name here."
        )
    if path.is_file():
        return _call(load_task_file, spec, "a file", arguments)
    if is_task(spec, own):
        return _call(load_task, spec, "a bundled task", {**arguments, **more})
    if spec.startswith(HUB) or (spec.count("/") == 1 and not path.suffix and spec[0] not in "./~"):
        return _call(load_hub_task, spec.removeprefix(HUB), "a data set on the Hub", arguments)
    if path.is_dir() or path.suffix or "/" in spec:
        return load_task_file(path)  # raises: it is a folder, or not there
    return load_task(spec, own=own)  # raises with the nearest names


def load_mixture(
    spec: str,
    seed: int = 0,
    *,
    mixing_sizes: str = "rows",
    mixing_cap: int = CAP,
    mixing_temperature: float = 1.0,
    available_only: bool = False,
    own: Sequence[TaskInfo] = (),
    form: Form = "t5",
    data_dir: Path | str | None = None,
    protocol: str | None = None,
    prefix: str | None = None,
    max_rows: int | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Task:
    """Load the members of a mixture and make one task of them.

    Args:
        spec: `mixture:` and the name of a mixture, or tasks as for `resolve_task` with commas between them.
        seed: Decides the splits of the members and the samples of the mixture.
        mixing_sizes: `rows`: a member counts as the train examples that it has here. `published`: a member
            of the catalog counts as the train rows that its authors published.
        mixing_cap: A member counts as at most so many examples.
        mixing_temperature: 1 for shares in proportion to the examples; higher for more equal ones.
        available_only: Leave out members whose rows no source has, and say so in the notes.
        own: The user's own tasks beside those of the catalog.
        form: Of members that have several; see `load_task`.
        data_dir: For members of the catalog, as are the next three; see `load_task`.
        protocol: Which rows are the test split.
        prefix: Whether inputs begin with the task's name.
        max_rows: Most rows of a split to take from the Hub.
        on_message: Told before a download starts.

    Raises:
        DataError: There is no such mixture or member, or its rows cannot be used.
        DownloadError: No source has the rows of a member.
    """
    wanted = {"data_dir": data_dir, "protocol": protocol, "prefix": prefix, "max_rows": max_rows}
    given = {name: value for name, value in wanted.items() if value is not None}
    name = spec.removeprefix(MIXTURE)
    members: list[Task] = []
    missing: list[str] = []
    for member in mixture_members(name):
        arguments = given if is_task(member, own) and not Path(member).is_file() else {}
        try:
            members.append(_resolved(member, own, form, on_message, {**arguments, "seed": seed}))
        except DownloadError:
            if not available_only:
                raise
            missing.append(member)
    if not members:
        raise DownloadError(f"No source has the rows of any member of {spec}: {', '.join(missing)}.")
    mixed = mix(
        f"mixture-{name}"
        if name in named_mixtures()
        else f"mixture-{'+'.join(task.name for task in members)}",
        members,
        sizes=_published(members, own) if mixing_sizes == "published" else None,
        cap=mixing_cap,
        temperature=mixing_temperature,
        seed=seed,
    )
    if not missing:
        return mixed
    return replace(mixed, notes=(*mixed.notes, f"Left out, for want of rows: {', '.join(missing)}."))


def _published(members: Sequence[Task], own: Sequence[TaskInfo]) -> list[int]:
    """The size of each task as published, or what it has where nothing was."""
    published = [
        task_info(task.name, own).train_size if is_task(task.name, own) else None for task in members
    ]
    return [size or len(task.train) for size, task in zip(published, members, strict=True)]


def _call(load: Callable[..., Task], spec: str, what: str, arguments: dict[str, Any]) -> Task:
    strange = sorted(arguments.keys() - inspect.signature(load).parameters.keys())
    if strange:
        verb = "applies" if len(strange) == 1 else "apply"
        raise DataError(f"{spec} is {what}, to which {' and '.join(strange)} never {verb}. Leave it out.")
    return load(spec, **arguments)
