"""How a task's rows are read: every option of a data file, a Hub data set, a task or a mixture, defined once.

A command's flags, the `options` of a study file and the keyword arguments of `resolve_task` are the fields of
`DataSpec`. It only describes; it reads nothing.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from spoton.errors import DataError
from spoton.fields import sentence
from spoton.tasks.mixture import CAP

DataKind = Literal["a file", "a folder", "a data set on the Hub", "a bundled task", "a mixture"]
LabelChoice = tuple[str, ...] | Literal["auto", "none"]


class DataSpec(BaseModel):
    """Options for reading a task's rows; each field has a default that suits most data.

    Examples:
        >>> DataSpec(input="body", labels=("bad", "good")).labels
        ('bad', 'good')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str | None = None
    """Column of the input, or `column.key` of a nested one. None: a column with a usual name, else a guess."""
    target: str | None = None
    """Column of the target, as `input`."""
    template: str | None = None
    """Jinja template of the input over all columns, instead of `input`."""
    labels: LabelChoice | None = None
    """The closed set of targets in order; `auto`: every target that occurs; `none`: targets are open text.
    None: decided by the targets, with a note that gives the reason. A string is read as one line of CSV."""
    class_weights: Literal["balanced"] | None = None
    """`balanced` repeats training rows of rarer labels, so that each label weighs about the same."""
    metrics: tuple[str, ...] | None = None
    """Names in `METRICS`, the main one first. None: decided by the targets."""
    name: str | None = None
    """Name of the task. None: the name of the file, folder or data set."""
    family: str | None = None
    """Kind of task, such as sentiment."""

    validation: Path | None = None
    """File of the validation split. None: taken out of the training rows."""
    test: Path | None = None
    """File of the test split. None: taken out of the training rows."""
    hold_out: bool = True
    """Whether splits without rows of their own are taken out of the training rows."""
    encoding: str | None = None
    """Encoding of text files. None: by the byte order mark, else UTF-8."""
    delimiter: str | None = None
    """Delimiter of CSV files. None: by the first line."""

    config: str | None = None
    """Configuration of a Hub data set."""
    revision: str | None = None
    """Revision of a Hub data set. Pin it for reproducible results."""
    train_split: str = "train"
    """Hub split to tune on."""
    validation_split: str | None = None
    """Hub split for validation. None: taken out of train."""
    test_split: str | None = None
    """Hub split to score on. None: taken out of train; many public test splits have no labels."""

    data_dir: Path | None = None
    """Folder with `<task>/<split>.jsonl` for catalog tasks. None: the environment variable SPOTON_DATA_DIR."""
    protocol: Literal["honest", "paper"] = "honest"
    """Test split of a catalog task: rows used for nothing else, or the paper's validation split."""
    prefix: Literal["task", "none"] = "task"
    """Whether inputs of a catalog task begin with the task's name."""
    form: Literal["t5", "natural"] = "t5"
    """Form of a task described by a YAML file: the paper's, or the one for decoder-only models. `form_for` gives a
    model's form. Other rows have only one form."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most rows of a split to take from the Hub for a catalog task."""

    mixing_sizes: Literal["rows", "published"] = "rows"
    """Size of a mixture's member: the training rows it has here, or the number its authors published."""
    mixing_cap: int = CAP
    """Cap on the size of a mixture's member."""
    mixing_temperature: float = 1.0
    """1 draws members in proportion to their sizes; higher values are more equal."""
    available_only: bool = False
    """Whether to leave out members of a mixture whose rows no source has."""

    split_seed: int = Field(default=0, validation_alias=AliasChoices("split_seed", "seed"))
    """Seed of the splits and the samples below. In Python and study files also `seed`."""
    k_shot: int | None = Field(default=None, ge=1)
    """Training examples per label; applied before the sizes below."""
    train_size: int | None = Field(default=None, ge=1)
    """Most training examples, with labels in proportion."""
    validation_size: int | None = Field(default=None, ge=1)
    """Most validation examples."""
    test_size: int | None = Field(default=None, ge=1)
    """Most test examples."""

    @field_validator("labels", "metrics", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        if isinstance(value, str) and value not in ("auto", "none"):
            return tuple(word.strip() for word in next(csv.reader([value], skipinitialspace=True), []))
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError("expected one character such as ; or |, or tab")
        return value

    @classmethod
    def of(cls, spec: "DataSpec | None" = None, options: Mapping[str, Any] | None = None) -> "DataSpec":
        """Returns a spec with changes by field name.

        Args:
            spec: Spec to start from. None: all defaults.
            options: The changes.

        Raises:
            DataError: A field is unknown or has a value of the wrong kind; the message names it.
        """
        if not options:
            return spec or cls()
        kept = {} if spec is None else spec.given()
        try:
            return cls.model_validate(kept | dict(options))
        except ValidationError as error:
            raise DataError(f"The options of data: {sentence(error.errors(), cls.model_fields)}") from error

    def given(self) -> dict[str, Any]:
        """Returns the fields that were set, by name."""
        return {field: getattr(self, field) for field in self.model_fields_set}

    def require_for(self, kind: DataKind, what: str) -> None:
        """Refuses fields that do not apply to a kind of data.

        Args:
            kind: Kind of data.
            what: The user's name for it.

        Raises:
            DataError: Names the fields.
        """
        strange = sorted(self.model_fields_set - _APPLY[kind] - _SAMPLES)
        if strange:
            verb = "applies" if len(strange) == 1 else "apply"
            raise DataError(f"{what} is {kind}, to which {' and '.join(strange)} never {verb}. Leave it out.")


_SAMPLES = frozenset(
    {"form", "split_seed", "k_shot", "train_size", "validation_size", "test_size", "class_weights"}
)
_ROWS = frozenset({"input", "target", "template", "labels", "metrics", "name", "family", "hold_out"})
_FOLDER = _ROWS | {"encoding", "delimiter"}
_CATALOG = frozenset({"data_dir", "protocol", "prefix", "max_rows"})
_APPLY: dict[DataKind, frozenset[str]] = {
    "a file": _FOLDER | {"validation", "test"},
    "a folder": _FOLDER,
    "a data set on the Hub": _ROWS | {"config", "revision", "train_split", "validation_split", "test_split"},
    "a bundled task": _CATALOG,
    "a mixture": _CATALOG | {"mixing_sizes", "mixing_cap", "mixing_temperature", "available_only"},
}
