"""The study file: sources, targets, seeds and recipes, as YAML in the study's folder, checked when it is read.

It says what to compute, not how: the cells are in `cells.py`.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ValidationError, field_validator, model_validator

from spoton.errors import RecipeError, StudyError
from spoton.fields import sentence, shown_value, unknown
from spoton.parsing import MalformedError, parse_yaml
from spoton.reading import read_text, reason
from spoton.study.plan.cell_base import TaskRole
from spoton.study.plan.model_tuning import MixtureEntry, ModelTuningBaseline
from spoton.study.plan.task_groups import (
    CHECKED,
    Seed,
    SourceGroup,
    TaskEntries,
    TaskEntry,
    TaskGroup,
    each_once,
)
from spoton.tasks.data_spec import DataSpec
from spoton.transfer.similarity import Similarity
from spoton.tuning.halving import Halving

StudyMethod = Literal[
    "weighted-average", "task-vectors", "learned-mix", "multiplicative", "multi-task-mixture"
]
"""Ways to use several sources that need their own runs; best-of-top-k uses the transfer runs."""
Control = Literal["noise"]
"""Starts without a source prompt, tuned on every target, to show the effect of any warm start."""

_LARGEST = 16 * 2**20  # bytes of a study file
_PRESETS = importlib.resources.files("spoton.study.plan") / "presets"


class Retrieval(BaseModel):
    """Which retrieval methods are tuned and analysed (SPoT, section 3.3)."""

    model_config = CHECKED

    similarity: Annotated[list[Similarity], AfterValidator(each_once)] = list(get_args(Similarity)[:2])
    """The similarities that compare keys; the first one retrieves for the methods below."""
    methods: Annotated[list[StudyMethod], AfterValidator(each_once)] = []
    """Methods that need their own runs."""
    k: Annotated[list[int], AfterValidator(each_once)] = [1, 3]
    """How many source prompts they take."""

    @field_validator("k")
    @classmethod
    def _counts(cls, k: list[int]) -> list[int]:
        if not k or min(k) < 1:
            raise ValueError("k has to be one or more numbers of at least 1")
        return sorted(k)

    @field_validator("similarity")
    @classmethod
    def _is_there(cls, similarity: list[Similarity]) -> list[Similarity]:
        if not similarity:
            raise ValueError(
                f"found an empty list, but prompts are retrieved by the first; list {' or '.join(get_args(Similarity))}"
            )
        return similarity


class LeftOut(BaseModel):
    """A source that is not tried on a target, for example because it holds rows of the target's test split."""

    model_config = CHECKED

    source: str
    target: str
    why: str


class SplitSizes(NamedTuple):
    """The most rows that each split of a task has; None: all there are."""

    train: int | None
    validation: int | None
    test: int | None


class StudyFile(BaseModel):
    """Everything that decides a transfer study.

    Examples:
        >>> study = StudyFile(
        ...     sources={"tasks": ["mnli"]}, targets={"tasks": ["cb"], "recipe": {"steps": 40}}, seeds=[0]
        ... )
        >>> study.targets.recipe_of(study.targets.tasks[0]).steps
        40
    """

    model_config = CHECKED

    model: str = "smollm2-135m"
    """The frozen model, as for `--model`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights."""
    seeds: list[Seed] = [0, 1, 2]
    """Every run is repeated with each seed."""
    protocol: Literal["honest", "paper"] = "honest"
    """Which rows are the test split of a task of the catalog."""
    form: Literal["auto", "t5", "natural"] = "auto"
    """The form in which tasks of the catalog are read; auto: by the kind of model."""
    data_dir: str | None = None
    """Folder of rows, relative to the study's folder; null: SPOTON_DATA_DIR, the bundled archives, or the Hub."""
    sources: SourceGroup
    """The tasks whose prompts are transferred, or prompts of a library."""
    targets: TaskGroup
    """The tasks they are transferred to."""
    candidates: TaskEntries = []
    """Tasks that are tuned from scratch only, like targets, with the first seed: what was not chosen as a target."""
    retrieval: Retrieval = Retrieval()
    """Methods and similarities to evaluate."""
    model_tuning: ModelTuningBaseline | None = None
    """Model tuning of every target, as a baseline; null: none."""
    halving: Halving | None = None
    """When the transfers to one target are compared, and which share continues; null: all are tuned to the end."""
    controls: list[Control] = []
    """Control starts that separate transfer from any warm start: `noise` as large as the first source's prompt."""
    leave_out: list[LeftOut] = []
    """Pairs that are not tried, and why. A task is never its own source."""
    keep_prompts: Literal["sources", "all"] = "sources"
    """`sources`: prompts of sources and of runs from scratch stay in the folder; `all`: every tuned prompt."""

    @model_validator(mode="after")
    def _holds_together(self) -> StudyFile:
        if not self.targets.tasks and not self.candidates:
            raise ValueError("targets needs at least one task")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds has to be one or more different numbers")
        strange = sorted(set((self.model_tuning and self.model_tuning.named_seeds) or ()) - set(self.seeds))
        if strange:
            raise ValueError(
                f"model_tuning has the seeds {strange}, which are not among the study's {self.seeds}"
            )
        chosen = {entry.task for entry in self.targets.tasks}
        if strangers := sorted(set((self.model_tuning and self.model_tuning.targets) or ()) - chosen):
            raise ValueError(
                f"model_tuning has the targets {', '.join(strangers)}, which are not among the study's "
                f"{', '.join(sorted(chosen))}"
            )
        twice = chosen & {entry.task for entry in self.candidates}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is both target and candidate")
        if self.sources.library is not None and "multi-task-mixture" in self.retrieval.methods:
            raise ValueError(
                "multi-task-mixture tunes on the rows of the sources, and prompts of a library have none; "
                "leave out the method or the library"
            )
        if self.controls and not self.sources.tasks and self.sources.library is None:
            raise ValueError("controls are compared with sources, and the study has no sources")
        sources = {entry.task for entry in self.sources.tasks} | set(self.sources.prompts or ())
        open_library = self.sources.library is not None and self.sources.prompts is None
        for pair in self.leave_out:
            for name, known, role in ((pair.source, sources, "source"), (pair.target, chosen, "target")):
                if name not in known and not (open_library and role == "source"):
                    hint = unknown(name, list(known), listed=False)
                    raise ValueError(f"leave_out names the {role} {name}, which is not in the study{hint}")
        return self

    @property
    def mixture(self) -> MixtureEntry | None:
        """The mixture of multi-task model tuning; None: there is none."""
        return self.model_tuning.mixture if self.model_tuning else None

    def tasks_of(self, role: TaskRole) -> list[TaskEntry]:
        """Returns the tasks of a role whose rows are read; candidates are targets."""
        if role == "mixture":
            return [self.mixture] if self.mixture else []
        return self.sources.tasks if role == "source" else [*self.targets.tasks, *self.candidates]

    def sizes_of(self, role: TaskRole) -> SplitSizes:
        """Returns the most rows that the splits of the tasks of a role have."""
        if role == "mixture":
            assert self.mixture
            return SplitSizes(self.mixture.train_size, self.mixture.validation_size, None)
        group = self.sources if role == "source" else self.targets
        return SplitSizes(group.train_size, group.validation_size, group.test_size)


def read_study_file(path: Path) -> StudyFile:
    """Reads and checks a study file.

    Raises:
        StudyError: The file does not exist or is not YAML, or a value is not valid; says which, and what was expected.
    """
    try:
        text = read_text(path, most=_LARGEST)
    except (OSError, UnicodeError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise StudyError(
            f"Cannot read the study file {path}: {why}. `spoton study new FOLDER` writes one to start from."
        ) from error
    return parse_study_file(text, str(path))


def parse_study_file(text: str, name: str) -> StudyFile:
    """Checks the text of a study file; errors use `name` for it.

    Raises:
        StudyError: See `read_study_file`.
    """
    try:
        found = parse_yaml(text)
    except MalformedError as error:
        raise StudyError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise StudyError(
            f"{name} contains {shown_value(found)}; expected a mapping with sources and targets."
        )
    try:
        study = StudyFile.model_validate(found)
    except ValidationError as error:
        told = sentence(error.errors(), _KNOWN, listed=False)
        raise StudyError(f"{name} is not a valid study: {told}") from error
    for group, entries in (
        (study.sources, study.sources.tasks),
        (study.targets, [*study.targets.tasks, *study.candidates]),
    ):
        for entry in entries:
            try:
                recipe = group.recipe_of(entry)
                if study.model_tuning is not None:
                    study.model_tuning.recipes_of(recipe)
            except RecipeError as error:
                raise RecipeError(f"{name}, {entry.task}: {error}") from error
            if study.halving is not None and group is study.targets and entry in group.tasks:
                study.halving.require_evaluations(recipe.steps, recipe.evaluate_every)
    try:
        if study.mixture:
            study.mixture.recipe_of(study.seeds[0])
    except RecipeError as error:
        raise RecipeError(f"{name}, model_tuning.mixture: {error}") from error
    return study


_MODELS: tuple[type[BaseModel], ...] = (
    StudyFile, SourceGroup, TaskEntry, Retrieval, LeftOut, ModelTuningBaseline, MixtureEntry, Halving, DataSpec
)  # fmt: skip
_KNOWN = sorted({name for model in _MODELS for name in model.model_fields})


def study_presets() -> list[str]:
    """Returns the names of the study files to start from."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _PRESETS.iterdir() if file.name.endswith(".yaml")
    )


def preset_text(name: str) -> str:
    """Returns the text of a study file to start from.

    Raises:
        StudyError: There is no preset of that name.
    """
    if name not in study_presets():
        raise StudyError(f"Unknown study preset {name!r}. Presets: {', '.join(study_presets())}.")
    return (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
