"""The study file: which sources, targets, seeds and recipes; a YAML in the study's folder, checked when it is read.

It says what shall be computed, and knows nothing of how: the cells are in `cells.py`.
"""

from __future__ import annotations

import difflib
import importlib.resources
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spoton.errors import StudyError
from spoton.evaluation.score import Mode
from spoton.parsing import MalformedError, parse_yaml
from spoton.reading import read_text, reason
from spoton.tasks.data_spec import DataSpec
from spoton.transfer.similarity import Metric
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe

Method = Literal["weighted-average", "task-vectors", "learned-mix", "multiplicative", "multi-task-mixture"]
"""Ways to use several sources that need runs of their own; best-of-top-k is read off the transfer runs."""
Control = Literal["noise"]
"""Starts that no source prompt gave, tuned on every target: what any warm start is worth."""

_LARGEST = 16 * 2**20  # bytes of a study file
_PRESETS = importlib.resources.files("spoton.study.plan") / "presets"
_CHECKED = ConfigDict(frozen=True, extra="forbid")


Seed = Annotated[int, Field(ge=0, lt=2**63)]


class TaskEntry(BaseModel):
    """One task of a study, and what is different for it alone."""

    model_config = _CHECKED

    task: str = Field(min_length=1)
    """As for `spoton tune`: a task of the catalog, a file, hub:owner/name, or mixture:a,b."""
    options: DataSpec = DataSpec()
    """How its rows are read: input, target, template, labels, data_dir, ..."""
    recipe: dict[str, Any] = {}
    """What is different in its recipe."""
    evaluation: Mode | None = None
    """rank or generate; null: by the task."""


class TaskGroup(BaseModel):
    """The sources, or the targets, of a study."""

    model_config = _CHECKED

    tasks: list[TaskEntry] = []
    """Names, or mappings with `task` and what is different for it."""
    recipe: dict[str, Any] = {}
    """`preset` and what is changed in it."""
    train_size: int | None = Field(default=None, ge=1)
    """At most this many training examples, each label in proportion; null: all."""
    validation_size: int | None = Field(default=None, ge=1)
    """At most this many examples to choose checkpoints by."""
    test_size: int | None = Field(default=None, ge=1)
    """At most this many examples for the score."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_are_entries(cls, tasks: Any) -> Any:
        if not isinstance(tasks, list):
            return tasks
        return [{"task": task} if isinstance(task, str) else task for task in tasks]

    @field_validator("tasks")
    @classmethod
    def _each_task_once(cls, tasks: list[TaskEntry]) -> list[TaskEntry]:
        names = Counter(entry.task for entry in tasks)
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there twice")
        return tasks

    def recipe_of(self, entry: TaskEntry) -> Recipe:
        """How one of the tasks is tuned.

        Raises:
            RecipeError: A value does not fit, or there is no such preset.
        """
        changes = self.recipe | entry.recipe
        return Recipe.preset(str(changes.pop("preset", "decoder")), **changes)


class SourceGroup(TaskGroup):
    """The sources of a study: tasks whose prompts it tunes, and prompts that a library has already."""

    library: str | None = None
    """`starter`, a folder or a URL: its prompts are sources as they are; null: all sources are tuned here."""
    prompts: list[str] | None = Field(default=None, min_length=1)
    """Which prompts of the library; null: all that belong to the model."""

    @model_validator(mode="after")
    def _prompts_are_of_a_library(self) -> SourceGroup:
        if self.prompts is not None and self.library is None:
            raise ValueError("prompts names prompts of a library, and library says which; give both")
        twice = sorted(name for name, count in Counter(self.prompts or ()).items() if count > 1)
        both = sorted({entry.task for entry in self.tasks} & set(self.prompts or ()))
        for names, why in (
            (twice, "stands there twice"),
            (both, "is both a task and a prompt of the library"),
        ):
            if names:
                raise ValueError(f"{', '.join(names)} {why}")
        return self


class Retrieval(BaseModel):
    """Which retrieval methods are tuned and analysed (SPoT, section 3.3)."""

    model_config = _CHECKED

    similarity: list[Metric] = list(get_args(Metric)[:2])
    """By which keys are compared; the first one retrieves for the methods below."""
    methods: list[Method] = []
    """Methods that need runs of their own."""
    k: list[int] = [1, 3]
    """How many source prompts they take."""

    @field_validator("k")
    @classmethod
    def _counts(cls, k: list[int]) -> list[int]:
        if not k or min(k) < 1:
            raise ValueError("k has to be one or more numbers from 1 on")
        return sorted(set(k))


class LeftOut(BaseModel):
    """A source that is not tried on a target, such as one that holds rows of its test split."""

    model_config = _CHECKED

    source: str
    target: str
    why: str


class ModelTuning(BaseModel):
    """Model tuning of every target, the baseline of a study: all weights of a copy of the model."""

    model_config = _CHECKED

    recipe: dict[str, Any] = {}
    """`preset` and changes, as for `ModelRecipe`; steps, batches, looks and input length not given are the target's."""
    seeds: list[int] | None = None
    """With which of the study's seeds; null: all of them."""

    def recipe_of(self, target: Recipe) -> ModelRecipe:
        """How the model is tuned on a target whose prompts are tuned by `target`: at equal data.

        Raises:
            RecipeError: A value does not fit, or there is no such preset.
        """
        shared = ("steps", "batch_size", "seed", "evaluate_every", "patience", "max_input_tokens")
        changes = {name: getattr(target, name) for name in shared} | self.recipe | {"seed": target.seed}
        return ModelRecipe.preset(str(changes.pop("preset", "decoder")), **changes)


class StudyFile(BaseModel):
    """All that decides a transfer study.

    Examples:
        >>> study = StudyFile(
        ...     sources={"tasks": ["mnli"]}, targets={"tasks": ["cb"], "recipe": {"steps": 40}}, seeds=[0]
        ... )
        >>> study.targets.recipe_of(study.targets.tasks[0]).steps
        40
    """

    model_config = _CHECKED

    model: str = "smollm2-135m"
    """The frozen model, as for `--model`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights."""
    seeds: list[Seed] = [0, 1, 2]
    """Every run is made with each of them."""
    protocol: Literal["honest", "paper"] = "honest"
    """Which rows give the score of a task of the catalog."""
    form: Literal["auto", "t5", "natural"] = "auto"
    """In which form tasks of the catalog are read; auto: by the kind of model."""
    data_dir: str | None = None
    """Folder of rows, relative to the study's folder; null: SPOTON_DATA_DIR, the bundled archives, or the Hub."""
    sources: SourceGroup
    """The tasks whose prompts are transferred, or prompts of a library."""
    targets: TaskGroup
    """The tasks they are transferred to."""
    candidates: list[TaskEntry] = []
    """Tasks tuned from scratch alone, as targets would be, with the first seed: what was not chosen as a target."""
    retrieval: Retrieval = Retrieval()
    """Methods and similarities to evaluate."""
    model_tuning: ModelTuning | None = None
    """Model tuning of every target, to compare with; null: none."""
    halving: Halving | None = None
    """When the transfers to one target are compared, and which share continues; null: all are tuned to the end."""
    controls: list[Control] = []
    """Starts to tell transfer from any other start by: `noise` as large as the first source's prompt."""
    leave_out: list[LeftOut] = []
    """Pairs not tried, and why. A task is never its own source."""
    keep_prompts: Literal["sources", "all"] = "sources"
    """Which tuned prompts stay in the folder; keys and scores of all do."""

    @field_validator("candidates", mode="before")
    @classmethod
    def _names_are_entries(cls, tasks: Any) -> Any:
        return [{"task": t} if isinstance(t, str) else t for t in tasks] if isinstance(tasks, list) else tasks

    @model_validator(mode="after")
    def _holds_together(self) -> StudyFile:
        if not self.targets.tasks and not self.candidates:
            raise ValueError("targets needs at least one task")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds has to be one or more different numbers")
        strange = sorted(set((self.model_tuning and self.model_tuning.seeds) or ()) - set(self.seeds))
        if strange:
            raise ValueError(
                f"model_tuning has the seeds {strange}, which are none of the study's {self.seeds}"
            )
        chosen = {entry.task for entry in self.targets.tasks}
        twice = chosen & {entry.task for entry in self.candidates}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is both target and candidate")
        if self.sources.library is not None and "multi-task-mixture" in self.retrieval.methods:
            raise ValueError(
                "multi-task-mixture tunes on the rows of the sources, and prompts of a library have none; "
                "leave the method or the library out"
            )
        if self.controls and not self.sources.tasks and self.sources.library is None:
            raise ValueError("controls are compared with sources, and there are none")
        sources = {entry.task for entry in self.sources.tasks} | set(self.sources.prompts or ())
        open_library = self.sources.library is not None and self.sources.prompts is None
        for pair in self.leave_out:
            for name, known, role in ((pair.source, sources, "source"), (pair.target, chosen, "target")):
                if name not in known and not (open_library and role == "source"):
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise ValueError(f"leave_out names the {role} {name}, which the study has not{hint}")
        return self


def read_study_file(path: Path) -> StudyFile:
    """Reads and checks a study file.

    Raises:
        StudyError: The file is not there or no YAML, or a value does not fit; says which, and what was expected.
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
    """Checks the text of a study file; `name` is what errors call it.

    Raises:
        StudyError: See `read_study_file`.
    """
    try:
        found = parse_yaml(text)
    except MalformedError as error:
        raise StudyError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise StudyError(f"{name} holds {type(found).__name__}; expected a mapping with sources and targets.")
    try:
        study = StudyFile.model_validate(found)
    except ValidationError as error:
        raise StudyError(f"{name} does not hold together: {_problems(error)}.") from error
    for group, entries in (
        (study.sources, study.sources.tasks),
        (study.targets, [*study.targets.tasks, *study.candidates]),
    ):
        for entry in entries:
            recipe = group.recipe_of(entry)  # raises with the value that does not fit
            if study.model_tuning is not None:
                study.model_tuning.recipe_of(recipe)
            if study.halving is not None and group is study.targets and entry in group.tasks:
                study.halving.require_evaluations(recipe.steps, recipe.evaluate_every)
    return study


def _problems(error: ValidationError) -> str:
    told = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"])) or "study"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            name = str(problem["loc"][-1])
            near = difflib.get_close_matches(name, [known for known in _KNOWN if known != name], n=1)
            message = f"there is no such entry{f'; did you mean {near[0]}?' if near else ''}"
        told.append(f"{place}: {message}")
    return "; ".join(told)


_MODELS: tuple[type[BaseModel], ...] = (
    StudyFile,
    SourceGroup,
    TaskEntry,
    Retrieval,
    LeftOut,
    ModelTuning,
    Halving,
    DataSpec,
)
_KNOWN = sorted({name for model in _MODELS for name in model.model_fields})


def study_presets() -> list[str]:
    """Names of the study files to start from."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _PRESETS.iterdir() if file.name.endswith(".yaml")
    )


def preset_text(name: str) -> str:
    """The text of a study file to start from.

    Raises:
        StudyError: There is none of that name.
    """
    if name not in study_presets():
        raise StudyError(f"There is no study preset {name!r}; there is: {', '.join(study_presets())}.")
    return (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
