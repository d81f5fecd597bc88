"""The options that describe data, declared once for all commands: the fields of `DataSpec` as flags."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoton.cli.options import DEFAULT_MODEL, ModelOptions
from spoton.cli.output import note, quiet_stdout

if TYPE_CHECKING:
    from spoton.models import FrozenModel
    from spoton.prompts import SoftPrompt
    from spoton.tasks import DataSpec, Task, TaskInfo
    from spoton.tasks.task_info import Form

_DATA = "Data"
_FILE_OF_LABELS = re.compile(r"[^,]*\.(txt|csv|tsv)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Which examples: a file with its columns, a task of the catalog, or a data set of the Hub.

    The fields are those of `DataSpec`, plus `label`, `task_file` and `data`.
    """

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA|TASK",
            help="CSV, TSV, JSON, Parquet or Excel file, folder with train.csv and others, task (`spoton tasks list`), "
            "hub:owner/name, or mixture:a,b.",
        ),
    ]
    input: Annotated[str | None, typer.Option(help="Column of the input text.", rich_help_panel=_DATA)] = None
    target: Annotated[str | None, typer.Option(help="Column of the target.", rich_help_panel=_DATA)] = None
    template: Annotated[
        str | None,
        typer.Option(help="Jinja template of the input over the row's columns.", rich_help_panel=_DATA),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            help="Label words, separated by commas; or a file with one per line; auto: every target is a label; none: "
            "targets are open text. Default: from the data, with a note.",
            rich_help_panel=_DATA,
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="One label word, which may contain commas; repeat it for each label, in place of --labels.",
            rich_help_panel=_DATA,
        ),
    ] = None
    class_weights: Annotated[
        Literal["balanced"] | None,
        typer.Option(
            help="balanced: training rows of rarer labels are repeated, so that each label weighs the same.",
            rich_help_panel=_DATA,
        ),
    ] = None
    validation: Annotated[
        Path | None, typer.Option(help="File of the validation split.", rich_help_panel=_DATA)
    ] = None
    test: Annotated[Path | None, typer.Option(help="File of the test split.", rich_help_panel=_DATA)] = None
    metrics: Annotated[
        str | None,
        typer.Option(help="Metrics, separated by commas; the first decides.", rich_help_panel=_DATA),
    ] = None
    family: Annotated[
        str | None, typer.Option(help="Kind of task, such as sentiment.", rich_help_panel=_DATA)
    ] = None
    name: Annotated[
        str | None,
        typer.Option(help="Name of the task. Default: the name of the file.", rich_help_panel=_DATA),
    ] = None
    config: Annotated[
        str | None, typer.Option(help="Configuration of a data set on the Hub.", rich_help_panel=_DATA)
    ] = None
    revision: Annotated[
        str | None, typer.Option(help="Revision of a data set on the Hub.", rich_help_panel=_DATA)
    ] = None
    train_split: Annotated[
        str | None,
        typer.Option(help="Split of the Hub to tune on. Default: train.", rich_help_panel=_DATA),
    ] = None
    validation_split: Annotated[
        str | None,
        typer.Option(
            help="Split of the Hub to validate on. Default: taken out of train.", rich_help_panel=_DATA
        ),
    ] = None
    test_split: Annotated[
        str | None,
        typer.Option(help="Split of the Hub to test on. Default: taken out of train.", rich_help_panel=_DATA),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="Text encoding of the file. Default: UTF-8.", rich_help_panel=_DATA)
    ] = None
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="Delimiter of a CSV file; `tab` means a tab. Default: detected from its first line.",
            rich_help_panel=_DATA,
        ),
    ] = None
    task_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="YAML file of a task of your own, used by name like those of the catalog; repeatable.",
            rich_help_panel=_DATA,
        ),
    ] = None
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with <task>/train.jsonl and validation.jsonl for tasks of the catalog. "
            "Default: SPOTON_DATA_DIR.",
            rich_help_panel=_DATA,
        ),
    ] = None
    protocol: Annotated[
        Literal["honest", "paper"] | None,
        typer.Option(
            help="Test split of a task of the catalog. honest: rows used for nothing else; "
            "paper: the validation split. Default: honest.",
            rich_help_panel=_DATA,
        ),
    ] = None
    prefix: Annotated[
        Literal["task", "none"] | None,
        typer.Option(
            help="Whether inputs begin with the task's name, as in T5. Default: task.",
            rich_help_panel=_DATA,
        ),
    ] = None
    form: Annotated[
        Literal["auto", "t5", "natural"],
        typer.Option(
            help="Form of a task of the catalog. t5: the paper's; natural: for decoder-only models; "
            "auto: the form the prompt was tuned in, else by the kind of model.",
            rich_help_panel=_DATA,
        ),
    ] = "auto"
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Put the input into the model's chat template, after the prompt.",
            rich_help_panel=_DATA,
        ),
    ] = False
    max_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Read at most this many rows of a split from the Hub.", rich_help_panel=_DATA
        ),
    ] = None
    mixing_sizes: Annotated[
        Literal["rows", "published"] | None,
        typer.Option(
            help="Size of a member of a mixture: the number of its rows, or the published size. Default: rows.",
            rich_help_panel=_DATA,
        ),
    ] = None
    mixing_cap: Annotated[
        int | None,
        typer.Option(
            min=1, help="A member of a mixture counts as at most this many examples.", rich_help_panel=_DATA
        ),
    ] = None
    mixing_temperature: Annotated[
        float | None,
        typer.Option(
            help="1: members in proportion to their examples; higher: more equal.", rich_help_panel=_DATA
        ),
    ] = None
    available_only: Annotated[
        bool,
        typer.Option(
            "--available-only", help="Leave out members of a mixture without rows.", rich_help_panel=_DATA
        ),
    ] = False
    split_seed: Annotated[
        int | None,
        typer.Option(help="Seed of the splits and of the samples below.", rich_help_panel=_DATA),
    ] = None
    k_shot: Annotated[
        int | None, typer.Option(min=1, help="Training examples per label.", rich_help_panel=_DATA)
    ] = None
    train_size: Annotated[
        int | None,
        typer.Option(min=1, help="Use at most this many training examples.", rich_help_panel=_DATA),
    ] = None
    validation_size: Annotated[
        int | None,
        typer.Option(min=1, help="Use at most this many validation examples.", rich_help_panel=_DATA),
    ] = None
    test_size: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many test examples.", rich_help_panel=_DATA)
    ] = None

    def described(self) -> TaskInfo | None:
        """Returns the entry of the task in the catalog or a task file; None for files, data sets and mixtures.

        Raises:
            DataError: A task file cannot be used.
        """
        from spoton.tasks import described_task

        return described_task(self.data, task_files=self.task_file or ())

    def spec(self) -> DataSpec:
        """Returns how these options read the rows.

        Raises:
            DataError: A value is not valid, or labels are given twice.
        """
        from spoton.errors import DataError
        from spoton.tasks import DataSpec

        given = {name: getattr(self, name) for name in DataSpec.model_fields if hasattr(self, name)}
        given = {name: value for name, value in given.items() if value is not None and value is not False}
        given.pop("form")  # `auto` needs the model
        if self.label and self.labels is not None:
            raise DataError("Labels are given by --labels and by --label. Keep one of the two.")
        if self.label:
            given["labels"] = tuple(self.label)
        elif self.labels is not None and is_path(self.labels):
            given["labels"] = _lines(Path(self.labels))
        elif self.labels is not None and _FILE_OF_LABELS.fullmatch(self.labels):
            raise DataError(f"Found no file {self.labels} with labels. Separate label words by commas.")
        return DataSpec.of(None, given)

    def load(
        self,
        model: ModelOptions | None = None,
        prompt: SoftPrompt | None = None,
        known: DataSpec | None = None,
    ) -> Task:
        """Returns the task these options describe; on a terminal, asks for columns that cannot be guessed.

        Args:
            model: The model that will read the task, which decides its form; None: the default model.
            prompt: The prompt that will be scored on it, whose form it takes.
            known: Values for options that are not given.

        Raises:
            DataError: The file, columns, labels or splits cannot be used.
            ModelError: The kind of the model is not known.
        """
        from spoton.errors import DataError
        from spoton.tasks import DataSpec, resolve_task

        spec = DataSpec.of(known, self.spec().given())
        form = self._form(model, prompt)
        spec = spec if form is None else DataSpec.of(spec, {"form": form})
        while True:
            try:
                with quiet_stdout():
                    task = resolve_task(self.data, spec, task_files=self.task_file or (), on_message=note)
                break
            except DataError as error:
                if not (error.option and sys.stdin.isatty() and sys.stderr.isatty()):
                    raise
                note(str(error))
                spec = DataSpec.of(spec, {error.option: _asked(error.option, error.columns)})
        for told in task.notes:
            note(told)
        return self._in_chat(task, model or ModelOptions(), prompt)

    def _form(self, model: ModelOptions | None, prompt: SoftPrompt | None) -> Form | None:
        """Returns the form to read the task in; None if it has only one."""
        from spoton.tasks.load import has_forms

        if self.form != "auto":
            return self.form
        if not has_forms(self.data, task_files=self.task_file or ()):
            return None
        if prompt is not None:
            from spoton.evaluation import form_of

            return form_of(prompt.card)
        return model.form if model is not None else "natural"

    def _in_chat(self, task: Task, model: ModelOptions, prompt: SoftPrompt | None) -> Task:
        """Returns the task as a chat, if an option or the prompt's card says so."""
        if not self.chat and prompt is None:
            return task
        from spoton.errors import DataError
        from spoton.evaluation.form import chat_of, is_chat
        from spoton.models.loading import load_tokenizer
        from spoton.tasks.chat import in_chat
        from spoton.tasks.load import MIXTURE_PREFIX

        if not self.chat and not (prompt is not None and is_chat(prompt.card)):
            return task
        if self.data.startswith(MIXTURE_PREFIX):
            raise DataError(
                f"--chat applies to a single task, and {self.data} is a mixture, whose members have different cues. "
                "Leave --chat out."
            )
        name = model.model or (prompt.card.model if prompt is not None else DEFAULT_MODEL)
        with quiet_stdout():
            return in_chat(task, chat_of(load_tokenizer(name), name))


@dataclass(frozen=True, kw_only=True)
class TargetOptions(TaskOptions):
    """A task, or a prompt that was tuned on it."""

    data: Annotated[
        str,
        typer.Argument(metavar="DATA|TASK|PROMPT", help="Data or task, as for `spoton tune`, or a prompt."),
    ]


def is_path(text: str) -> bool:
    """Whether a text is an existing path; the text may have any length and content."""
    try:
        return bool(text) and Path(text).exists()  # the path "" is the folder of the process
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def note_unknown(model: FrozenModel, labels: Sequence[str] | None) -> None:
    """Warns of labels with parts that are not in the model's vocabulary."""
    from spoton.evaluation.encoding import unknown_in_labels, unknown_sentence

    unknown = unknown_in_labels(model, labels)
    if unknown:
        note(unknown_sentence(unknown))


def _asked(option: str, columns: Sequence[str]) -> str:
    """Asks for a column on the terminal, by number or name."""
    for number, column in enumerate(columns, start=1):
        note(f"  {number}  {column}")
    while True:
        answer = typer.prompt(f"Column of the {option}", err=True).strip()
        if answer in columns:
            return str(answer)
        if answer.isdecimal() and 1 <= int(answer) <= len(columns):
            return columns[int(answer) - 1]
        note(f"Give a number from 1 to {len(columns)}, or a name.")


def _lines(path: Path) -> tuple[str, ...]:
    """Returns the labels in a file with one label per line."""
    from spoton.tasks.files import decoded, file_content, text_lines

    lines = text_lines(decoded(file_content(path)[0], path))
    return tuple(line.strip() for line in lines if line.strip())
