"""How the rows of a task are read: every option of a data file, a data set of the Hub, a task or a mixture, once.

A command's flags, the `options` of a study file and the keyword arguments of `resolve_task` are the fields of
`DataSpec`. It says what is wanted and reads nothing.
"""

import csv
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from spoton.errors import DataError
from spoton.tasks.mixture import CAP

Kind = Literal["a file", "a folder", "a data set on the Hub", "a bundled task", "a mixture"]
Labels = tuple[str, ...] | Literal["auto", "none"]


class DataSpec(BaseModel):
    """What is asked of the rows of a task; each field has a default that suits most data.

    Examples:
        >>> DataSpec(input="body", labels=("bad", "good")).labels
        ('bad', 'good')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str | None = None
    """Column of the input, or `column.key` of a nested one. None: a column of a usual name, else a guess."""
    target: str | None = None
    """Column of the target, as `input`."""
    template: str | None = None
    """Jinja template of the input over all columns, in place of `input`."""
    labels: Labels | None = None
    """The closed set of targets in its order; `auto`: every target that occurs; `none`: targets are open text.
    None: by the targets, with a note that gives the reason. A string is read as one line of CSV."""
    class_weights: Literal["balanced"] | None = None
    """`balanced`: training rows of rarer labels are repeated, so that each label weighs about the same."""
    metrics: tuple[str, ...] | None = None
    """Names in `METRICS`, the main one first. None: by the targets."""
    name: str | None = None
    """Name of the task. None: that of the file, folder or data set."""
    family: str | None = None
    """What kind of task it is, such as sentiment."""

    validation: Path | None = None
    """File of the validation split. None: taken out of the training rows."""
    test: Path | None = None
    """File of the test split. None: taken out of the training rows."""
    hold_out: bool = True
    """Whether splits without rows of their own are taken out of the training rows."""
    encoding: str | None = None
    """Of text files. None: by the byte order mark, else UTF-8."""
    delimiter: str | None = None
    """Between the cells of CSV files. None: by the first line."""

    config: str | None = None
    """Configuration of a data set of the Hub."""
    revision: str | None = None
    """Revision of a data set of the Hub. Pin it for results that shall be repeated."""
    train_split: str = "train"
    """Split of the Hub to tune on."""
    validation_split: str | None = None
    """Split of the Hub to choose by. None: taken out of train."""
    test_split: str | None = None
    """Split of the Hub to score on. None: taken out of train; many public test splits have no labels."""

    data_dir: Path | None = None
    """Folder with `<task>/<split>.jsonl` for tasks of the catalog. None: the variable SPOTON_DATA_DIR."""
    protocol: Literal["honest", "paper"] = "honest"
    """Test split of a task of the catalog: rows used for nothing else, or the paper's validation split."""
    prefix: Literal["task", "none"] = "task"
    """Whether inputs of a task of the catalog begin with the task's name."""
    form: Literal["t5", "natural"] = "t5"
    """Form of a task described by a YAML file: the paper's, or that for decoder-only models. `form_for` gives that of
    a model. Other rows have one form only."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most rows of a split to take from the Hub for a task of the catalog."""

    mixing_sizes: Literal["rows", "published"] = "rows"
    """A member of a mixture counts as the training rows it has here, or as those its authors published."""
    mixing_cap: int = CAP
    """A member of a mixture counts as at most this many examples."""
    mixing_temperature: float = 1.0
    """1: members in proportion to their examples; higher: more equal."""
    available_only: bool = False
    """Leave out members of a mixture whose rows no source has."""

    split_seed: int = Field(default=0, validation_alias=AliasChoices("split_seed", "seed"))
    """Decides the splits and the samples below. In Python and study files also `seed`."""
    k_shot: int | None = Field(default=None, ge=1)
    """Training examples of each label; taken before the sizes below."""
    train_size: int | None = Field(default=None, ge=1)
    """At most this many training examples, each label in proportion."""
    validation_size: int | None = Field(default=None, ge=1)
    """At most this many validation examples."""
    test_size: int | None = Field(default=None, ge=1)
    """At most this many test examples."""

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
            spec: What to start from. None: all defaults.
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
            raise DataError(" ".join(map(_problem, error.errors()))) from error

    def given(self) -> dict[str, Any]:
        """Returns the fields that were set, by name."""
        return {field: getattr(self, field) for field in self.model_fields_set}

    def require_for(self, kind: Kind, what: str) -> None:
        """Refuses fields that say nothing about data of a kind.

        Args:
            kind: What the data is.
            what: How the user named it.

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
_APPLY: dict[Kind, frozenset[str]] = {
    "a file": _FOLDER | {"validation", "test"},
    "a folder": _FOLDER,
    "a data set on the Hub": _ROWS | {"config", "revision", "train_split", "validation_split", "test_split"},
    "a bundled task": _CATALOG,
    "a mixture": _CATALOG | {"mixing_sizes", "mixing_cap", "mixing_temperature", "available_only"},
}


def _problem(problem: Any) -> str:
    field = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, DataSpec.model_fields, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There is: {', '.join(DataSpec.model_fields)}."
        return f"{field} is not an option of data. {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: found {problem['input']!r}; {message[0].lower()}{message[1:]}."
