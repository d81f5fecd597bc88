"""Every option and argument that more than one command takes, declared once.

A flag has the name of the field or parameter it sets. A group is a dataclass; `spoton.cli.command` spreads it
into single options. Nothing here has a default of its own where its room has one: None means "not given".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spoton.cli.output import note, quiet_stdout

if TYPE_CHECKING:
    from spoton.models import FrozenModel
    from spoton.prompts import SoftPrompt
    from spoton.tasks import Task, TaskInfo
    from spoton.tasks.task_info import Form

DEFAULT_MODEL = "smollm2-135m"

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Library = Annotated[
    list[str] | None,
    typer.Option(
        "--library",
        help="Folder or URL of prompts, or `starter`; may be given several times. "
        "Not given: your own library and the starter library.",
        rich_help_panel="Library",
    ),
]
OwnLibrary = Annotated[
    str | None,
    typer.Option(
        "--library", help="Folder or URL of prompts. Not given: your own library.", rich_help_panel="Library"
    ),
]
Metric = Annotated[
    Literal["average_tokens", "per_token_average", "maximum_token"],
    typer.Option(help="How two prompts are compared.", rich_help_panel="Retrieval"),
]
K = Annotated[
    int, typer.Option("--k", "-k", min=1, help="How many prompts to retrieve.", rich_help_panel="Retrieval")
]
Evaluation = Annotated[
    Literal["rank", "generate"] | None,
    typer.Option(
        "--evaluation",
        help="How answers are found; not given: rank for a closed set of labels, else generate.",
        rich_help_panel="Evaluation",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is at --out, once the new run has finished."),
]
PromptSpec = Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt file, or a name in a library.")]

_DATA = "Data"
_MODEL = "Model"
_RECIPE = "Recipe"


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Which examples: a file with its columns, a task of the catalog, or a data set of the Hub."""

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA|TASK",
            help="CSV, TSV, JSONL or Parquet file, task (`spoton tasks list`), hub:owner/name, or mixture:a,b.",
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
            help="Label words, separated by commas. Not given: from the data.", rich_help_panel=_DATA
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
        str | None, typer.Option(help="What kind of task it is, such as sentiment.", rich_help_panel=_DATA)
    ] = None
    config: Annotated[
        str | None, typer.Option(help="Configuration of a data set on the Hub.", rich_help_panel=_DATA)
    ] = None
    revision: Annotated[
        str | None, typer.Option(help="Revision of a data set on the Hub.", rich_help_panel=_DATA)
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="Text encoding of the file.", rich_help_panel=_DATA)
    ] = None
    task_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="YAML file of a task of your own, to be named like those of the catalog; "
            "may be given several times.",
            rich_help_panel=_DATA,
        ),
    ] = None
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with <task>/train.jsonl and validation.jsonl for tasks of the catalog. "
            "Not given: SPOTON_DATA_DIR.",
            rich_help_panel=_DATA,
        ),
    ] = None
    protocol: Annotated[
        Literal["honest", "paper"] | None,
        typer.Option(
            help="Test split of a task of the catalog. honest: rows used for nothing else; "
            "paper: the validation split. Not given: honest.",
            rich_help_panel=_DATA,
        ),
    ] = None
    prefix: Annotated[
        Literal["task", "none"] | None,
        typer.Option(
            help="Whether inputs begin with the task's name, where T5 has it. Not given: task.",
            rich_help_panel=_DATA,
        ),
    ] = None
    form: Annotated[
        Literal["auto", "t5", "natural"],
        typer.Option(
            help="Form of a task of the catalog. t5: the paper's; natural: that for decoder-only models; "
            "auto: as the prompt was tuned, else by the kind of model.",
            rich_help_panel=_DATA,
        ),
    ] = "auto"
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Put the input into the model's own chat template, behind the prompt.",
            rich_help_panel=_DATA,
        ),
    ] = False
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Most rows of a split to take from the Hub.", rich_help_panel=_DATA),
    ] = None
    mixing_sizes: Annotated[
        Literal["rows", "published"] | None,
        typer.Option(
            help="Size of a member of a mixture: its rows here, or as published. Not given: rows.",
            rich_help_panel=_DATA,
        ),
    ] = None
    mixing_cap: Annotated[
        int | None,
        typer.Option(
            min=1, help="A member of a mixture counts as at most so many examples.", rich_help_panel=_DATA
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
        typer.Option(help="Seed of the split and of the samples below.", rich_help_panel=_DATA),
    ] = None
    k_shot: Annotated[
        int | None, typer.Option(min=1, help="Training examples per label.", rich_help_panel=_DATA)
    ] = None
    train_size: Annotated[
        int | None, typer.Option(min=1, help="At most so many training examples.", rich_help_panel=_DATA)
    ] = None
    validation_size: Annotated[
        int | None, typer.Option(min=1, help="At most so many validation examples.", rich_help_panel=_DATA)
    ] = None
    test_size: Annotated[
        int | None, typer.Option(min=1, help="At most so many test examples.", rich_help_panel=_DATA)
    ] = None

    def described(self) -> TaskInfo | None:
        """What the catalog, or a task file, says of the task; None for files, data sets and mixtures.

        Raises:
            DataError: a task file cannot be used.
        """
        from spoton.tasks import described_task

        return described_task(self.data, task_files=self.task_file or ())

    def load(self, model: ModelOptions | None = None, prompt: SoftPrompt | None = None) -> Task:
        """The task these options describe.

        Args:
            model: What will read it, which decides the form; None: the default model.
            prompt: What it will be scored with, whose form it takes.

        Raises:
            DataError: the file, columns, labels or splits cannot be used.
            ModelError: the model's kind cannot be found out.
        """
        from spoton.tasks import resolve_task

        given: dict[str, Any] = {
            "input": self.input,
            "target": self.target,
            "template": self.template,
            "labels": _words(self.labels),
            "metrics": _words(self.metrics),
            "family": self.family,
            "config": self.config,
            "revision": self.revision,
            "validation": self.validation,
            "test": self.test,
            "encoding": self.encoding,
            "task_files": self.task_file,
            "data_dir": self.data_dir,
            "protocol": self.protocol,
            "prefix": self.prefix,
            "form": self._form(model, prompt),
            "max_rows": self.max_rows,
            "mixing_sizes": self.mixing_sizes,
            "mixing_cap": self.mixing_cap,
            "mixing_temperature": self.mixing_temperature,
            "available_only": self.available_only or None,
            "seed": self.split_seed,
        }
        given = {name: value for name, value in given.items() if value is not None}
        with quiet_stdout():
            task = resolve_task(self.data, on_message=note, **given)
        seed = self.split_seed or 0
        if self.k_shot is not None:
            task = task.k_shot(self.k_shot, seed)
        if (self.train_size, self.validation_size, self.test_size) != (None, None, None):
            task = task.limited(self.train_size, self.validation_size, self.test_size, seed)
        for told in task.notes:
            note(told)
        return self._in_chat(task, model or ModelOptions(), prompt)

    def _form(self, model: ModelOptions | None, prompt: SoftPrompt | None) -> Form | None:
        """The form to read the task in; None where it has one only."""
        from spoton.evaluation.form import form_of
        from spoton.tasks.load import has_forms

        if self.form != "auto":
            return self.form
        if not has_forms(self.data, task_files=self.task_file or ()):
            return None
        return form_of(prompt.card) if prompt is not None else (model or ModelOptions()).form

    def _in_chat(self, task: Task, model: ModelOptions, prompt: SoftPrompt | None) -> Task:
        """The task as a chat, if that is asked for or the prompt was tuned so."""
        from spoton.errors import DataError
        from spoton.evaluation.form import chat_of, is_chat
        from spoton.models.loading import load_tokenizer
        from spoton.tasks.chat import in_chat
        from spoton.tasks.load import MIXTURE

        if not self.chat and not (prompt is not None and is_chat(prompt.card)):
            return task
        if self.data.startswith(MIXTURE):
            raise DataError(
                f"--chat applies to a task, and {self.data} is a mixture, whose members have cues of their own. "
                "Leave it out."
            )
        name = model.model or (prompt.card.model if prompt is not None else DEFAULT_MODEL)
        with quiet_stdout():
            return in_chat(task, chat_of(load_tokenizer(name), name))


@dataclass(frozen=True, kw_only=True)
class TargetOptions(TaskOptions):
    """A task, or a prompt that was learned on it."""

    data: Annotated[
        str,
        typer.Argument(metavar="DATA|TASK|PROMPT", help="Data or task, as for `spoton tune`, or a prompt."),
    ]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which frozen model, and how it is held."""

    model: Annotated[
        str | None,
        typer.Option(
            help="Embedded model, Hugging Face id, folder, or GGUF file. "
            f"Not given: that of the prompt, else {DEFAULT_MODEL}.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights; auto: bfloat16 where it is fast.", rich_help_panel=_MODEL),
    ] = "auto"
    device: Annotated[
        str, typer.Option(help="A torch device; auto: a GPU if there is one.", rich_help_panel=_MODEL)
    ] = "auto"
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the layers: for long runs of models that are not like Llama.",
            rich_help_panel=_MODEL,
        ),
    ] = False

    def in_float32(self) -> ModelOptions:
        """The same for model tuning, which holds all weights in float32: small steps would be lost in bfloat16.

        Raises:
            ModelError: another type was asked for, or compiled layers, which a copy of the model has not.
        """
        from spoton.errors import ModelError

        wrong = ["--compile"] if self.compile else []
        wrong += [] if self.dtype in ("auto", "float32") else [f"--dtype {self.dtype}"]
        if wrong:
            raise ModelError(
                f"{' and '.join(wrong)} cannot be had with --method model: all weights of a copy are tuned in float32. "
                "Leave it out."
            )
        return replace(self, dtype="float32")

    @property
    def form(self) -> Form:
        """The form of tasks that suits the model, by its configuration alone.

        Raises:
            ModelError: it cannot be found or read.
        """
        from spoton.models.loading import is_encoder_decoder

        with quiet_stdout():
            return "t5" if is_encoder_decoder(self.model or DEFAULT_MODEL) else "natural"

    def load(self, prompt: SoftPrompt | None = None) -> FrozenModel:
        """The model these options describe; says on stderr what was chosen.

        Args:
            prompt: What will be used with it.

        Raises:
            ModelError: it cannot be found, read, or held in that type, or there is no such device.
            DownloadError: an embedded model could not be fetched.
            PromptError: the prompt belongs to another model.
        """
        from spoton.models import load_model

        name = self.model or (prompt.card.model if prompt else DEFAULT_MODEL)
        with quiet_stdout():
            model = load_model(
                name, dtype=self.dtype, device=self.device, compile=self.compile, on_message=note
            )
            if prompt is not None:
                prompt.require_model(model.fingerprint, model.name)
        return model


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]
