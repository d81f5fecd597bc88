"""Renders rows as text-to-text examples: fills a task's templates and label words, and notes groups."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import Template

from spoton.errors import DataError
from spoton.tasks.sources import Rows
from spoton.tasks.t5_text import PROCESSORS, RawRow
from spoton.tasks.task import Example
from spoton.tasks.task_info import Form, TaskInfo
from spoton.tasks.template import compile_template, render

Prefix = Literal["task", "none"]


@dataclass(frozen=True)
class Rendered:
    """Examples, and for each the key of the group that must stay in one split."""

    examples: list[Example]
    groups: list[str]


def input_template(info: TaskInfo, prefix: Prefix, *, archived: bool = False, form: Form = "t5") -> str:
    """Returns the template of the input, with the task's name in front if it has one and `prefix` asks for it.

    Several templates of a task differ only in a column; this is the first.
    """
    return _texts(info.in_form(form), prefix, archived=archived)[0]


def render_rows(info: TaskInfo, rows: Rows, prefix: Prefix, form: Form = "t5") -> dict[str, Rendered]:
    """Returns the examples of each split. Groups, and so splits, are the same in every form.

    Raises:
        DataError: A row lacks a column, or no row of a split gives an example.
    """
    said = info.in_form(form)
    compiled = _Form.of(
        said, prefix, archived=rows.archived, grouped_by=_texts(info, prefix, archived=rows.archived)
    )
    found: dict[str, Rendered] = {}
    for split, given in rows.splits.items():
        prepared = _official(info, given, archived=rows.archived)
        if info.process_docs is not None:
            prepared = PROCESSORS[info.process_docs](prepared, split)
        found[split] = compiled.examples(prepared)
        if not found[split].examples:
            raise DataError(
                f"None of the {len(given)} {split} rows of {info.name} ({rows.source}) gives an example. "
                "Check that their labels are there."
            )
        _require_labels(found[split].examples, said, f"{split} rows of {info.name} ({rows.source})")
    return found


def _require_labels(examples: Sequence[Example], info: TaskInfo, what: str) -> None:
    counts = Counter(example.target for example in examples)
    strange = sorted(counts.keys() - set(info.labels)) if info.labels is not None else []
    if strange:
        shown = ", ".join(f"{target!r} ({counts[target]} times)" for target in strange[:5])
        raise DataError(
            f"The {what} have targets that are not among its labels {list(info.labels or ())}: {shown}. "
            "Add them to the labels or correct the rows."
        )


@dataclass(frozen=True)
class _Form:
    """The compiled templates of a task."""

    parts: list[tuple[Template, Template, Template | None]]
    """Input, target and group (where that is not the input) of every example that a row makes."""
    question: Template | None
    info: TaskInfo

    @classmethod
    def of(cls, info: TaskInfo, prefix: Prefix, *, archived: bool, grouped_by: Sequence[str]) -> "_Form":
        targets = info.targets
        if archived and info.archive is not None and info.archive.doc_to_target:
            targets = (info.archive.doc_to_target,)
        texts = _texts(info, prefix, archived=archived)
        parts = [
            (compile_template(text), compile_template(target), _group(info.doc_to_group or own, text))
            for text, target, own in zip(texts, targets, grouped_by, strict=True)
        ]
        question = compile_template(info.doc_to_question) if info.doc_to_question is not None else None
        return cls(parts, question, info)

    def examples(self, rows: Sequence[RawRow]) -> Rendered:
        """Returns the examples of all rows and the group of each."""
        examples: list[Example] = []
        groups: list[str] = []
        for number, row in enumerate(rows):
            fields = {**row, "number": number}
            for text, target, group in self.parts:
                answer = render(target, fields)
                if not answer:
                    continue
                examples.append(
                    Example(
                        render(text, fields),
                        self.info.words.get(answer, answer),
                        references=_references(row, self.info.references),
                        question=render(self.question, fields) if self.question is not None else "",
                    )
                )
                groups.append(examples[-1].input if group is None else render(group, fields))
        return Rendered(examples, groups)


def _group(key: str, text: str) -> Template | None:
    return None if key == text else compile_template(key)


def _texts(info: TaskInfo, prefix: Prefix, *, archived: bool) -> tuple[str, ...]:
    """Returns the templates of the input for rows of this kind."""
    own = info.archive.doc_to_text if info.archive is not None and archived else None
    return tuple(_prefixed(text, info, prefix) for text in ((own,) if own else info.texts))


def _official(info: TaskInfo, rows: Sequence[RawRow], *, archived: bool) -> list[RawRow]:
    """Returns rows of this task under the official column names, with hidden labels as empty ones."""
    absent = None if archived else ""
    named = [
        {_renamed(name, row, info): absent if value is None else value for name, value in row.items()}
        for row in rows
    ]
    return [row for row in named if all(str(row.get(name, at)) == at for name, at in info.where.items())]


def _renamed(name: str, row: RawRow, info: TaskInfo) -> str:
    other = info.rename.get(name, name)
    return name if other in row else other


def _references(row: RawRow, path: str | None) -> tuple[str, ...]:
    """Returns the list in a column, or in `column.key`."""
    if path is None:
        return ()
    found: Any = row
    for key in path.split("."):
        found = found[key]
    return tuple(map(str, found))


def _prefixed(text: str, info: TaskInfo, prefix: Prefix) -> str:
    return f"{info.prefix} {text}" if info.prefix is not None and prefix == "task" else text
