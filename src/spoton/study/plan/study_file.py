"""The study file: sources, targets, seeds and recipes, as YAML in the study's folder, checked when it is read.

It says what to compute, not how: the cells are in `cells.py`.
"""

from __future__ import annotations

import difflib
import importlib.resources
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from spoton.errors import RecipeError, StudyError
from spoton.evaluation.score import Mode
from spoton.parsing import MalformedError, parse_yaml
from spoton.reading import read_text, reason
from spoton.tasks.data_spec import DataSpec
from spoton.transfer.similarity import Similarity
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe

StudyMethod = Literal[
    "weighted-average", "task-vectors", "learned-mix", "multiplicative", "multi-task-mixture"
]
"""Ways to use several sources that need their own runs; best-of-top-k uses the transfer runs."""
Control = Literal["noise"]
"""Starts without a source prompt, tuned on every target, to show the effect of any warm start."""

_LARGEST = 16 * 2**20  # bytes of a study file
_PRESETS = importlib.resources.files("spoton.study.plan") / "presets"
_CHECKED = ConfigDict(frozen=True, extra="forbid")

_Value = TypeVar("_Value")


def _require_once(values: Iterable[object]) -> None:
    twice = sorted(str(value) for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"{', '.join(twice)} is listed twice; keep one")


def _each_once(values: list[_Value]) -> list[_Value]:
    _require_once(values)
    return values


def _for_all_runs(recipe: dict[str, Any]) -> dict[str, Any]:
    if "seed" in recipe:
        raise ValueError(
            f"found seed {recipe['seed']}, but runs have the seeds of the study; remove it here, list it under seeds"
        )
    if recipe.get("learning_rate") == "auto":
        raise ValueError(
            "found learning_rate auto, which is chosen where one prompt is tuned alone, not in a study; give a number"
        )
    return recipe


Seed = Annotated[int, Field(ge=0, lt=2**63)]
RecipeChanges = Annotated[dict[str, Any], AfterValidator(_for_all_runs)]


class TaskEntry(BaseModel):
    """One task of a study, and the settings for this task only."""

    model_config = _CHECKED

    task: str = Field(min_length=1)
    """As for `spoton tune`: a task of the catalog, a file, hub:owner/name, or mixture:a,b."""
    options: DataSpec = DataSpec()
    """How its rows are read: input, target, template, labels, data_dir, ..."""
    recipe: RecipeChanges = {}
    """Changes to the recipe for this task."""
    evaluation: Mode | None = None
    """rank or generate; null: decided by the task."""


def _names_as_entries(tasks: Any) -> Any:
    return [{"task": t} if isinstance(t, str) else t for t in tasks] if isinstance(tasks, list) else tasks


def _each_task_once(tasks: list[TaskEntry]) -> list[TaskEntry]:
    _require_once(entry.task for entry in tasks)
    return tasks


TaskEntries = Annotated[list[TaskEntry], BeforeValidator(_names_as_entries), AfterValidator(_each_task_once)]


class TaskGroup(BaseModel):
    """The sources, or the targets, of a study."""

    model_config = _CHECKED

    tasks: TaskEntries = []
    """Names, or mappings with `task` and its own settings."""
    recipe: RecipeChanges = {}
    """`preset` and changes to it."""
    train_size: int | None = Field(default=None, ge=1)
    """At most this many training examples, each label in proportion; null: all."""
    validation_size: int | None = Field(default=None, ge=1)
    """At most this many examples to choose checkpoints by."""
    test_size: int | None = Field(default=None, ge=1)
    """At most this many examples for the score."""

    def recipe_of(self, entry: TaskEntry) -> Recipe:
        """Returns how one of the tasks is tuned.

        Raises:
            RecipeError: A value is not valid, or there is no such preset.
        """
        changes = self.recipe | entry.recipe
        return Recipe.preset(str(changes.pop("preset", "decoder")), **changes)


class SourceGroup(TaskGroup):
    """The sources of a study: tasks whose prompts it tunes, and prompts of a library."""

    library: str | None = None
    """`starter`, a folder or a URL: its prompts are sources without tuning; null: the study tunes all sources."""
    prompts: Annotated[list[str], AfterValidator(_each_once)] | None = Field(default=None, min_length=1)
    """Which prompts of the library; null: all that belong to the model and have a key."""

    @model_validator(mode="after")
    def _prompts_are_of_a_library(self) -> SourceGroup:
        if self.prompts is not None and self.library is None:
            raise ValueError(
                "prompts names prompts of a library, so library has to say which library; give both"
            )
        both = sorted({entry.task for entry in self.tasks} & set(self.prompts or ()))
        if both:
            raise ValueError(f"{', '.join(both)} is both a task and a prompt of the library; keep one")
        return self


class Retrieval(BaseModel):
    """Which retrieval methods are tuned and analysed (SPoT, section 3.3)."""

    model_config = _CHECKED

    similarity: Annotated[list[Similarity], AfterValidator(_each_once)] = list(get_args(Similarity)[:2])
    """The similarities that compare keys; the first one retrieves for the methods below."""
    methods: Annotated[list[StudyMethod], AfterValidator(_each_once)] = []
    """Methods that need their own runs."""
    k: Annotated[list[int], AfterValidator(_each_once)] = [1, 3]
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

    model_config = _CHECKED

    source: str
    target: str
    why: str


class ModelTuningBaseline(BaseModel):
    """Model tuning of every target, the baseline of a study: all weights of a copy of the model."""

    model_config = _CHECKED

    recipe: RecipeChanges = {}
    """`preset` and changes, as for `ModelRecipe`; steps, batch size, evaluations and input length default to the
    target's."""
    seeds: list[int] | None = None
    """Which of the study's seeds; null: all."""
    targets: list[str] | None = None
    """Which of the study's targets; null: all."""
    learning_rates: list[float] = []
    """Rates to try on every target and seed, each in a cell of its own; the analysis takes the one that is best by
    validation. Empty: that of the recipe."""

    @model_validator(mode="after")
    def _one_way_to_name_rates(self) -> ModelTuningBaseline:
        if len(set(self.learning_rates)) != len(self.learning_rates):
            raise ValueError("learning_rates has to be different numbers")
        if self.learning_rates and "learning_rate" in self.recipe:
            raise ValueError("give either learning_rates or the learning_rate of recipe, not both")
        return self

    def recipes_of(self, target: Recipe) -> list[ModelRecipe]:
        """Returns how the model is tuned on a target, on the same data as its prompts, once for every learning rate.

        Args:
            target: The recipe of the target's prompts.

        Raises:
            RecipeError: A value is not valid, or there is no such preset.
        """
        recipe = self._recipe_of(target)
        return [recipe.changed(learning_rate=rate) for rate in self.learning_rates] or [recipe]

    def _recipe_of(self, target: Recipe) -> ModelRecipe:
        shared = ("steps", "batch_size", "seed", "evaluate_every", "patience", "max_input_tokens")
        changes = {name: getattr(target, name) for name in shared} | self.recipe | {"seed": target.seed}
        return ModelRecipe.preset(str(changes.pop("preset", "decoder")), **changes)


class StudyFile(BaseModel):
    """Everything that decides a transfer study.

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
        strange = sorted(set((self.model_tuning and self.model_tuning.seeds) or ()) - set(self.seeds))
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
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise ValueError(f"leave_out names the {role} {name}, which is not in the study{hint}")
        return self


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
            f"{name} contains {type(found).__name__}; expected a mapping with sources and targets."
        )
    try:
        study = StudyFile.model_validate(found)
    except ValidationError as error:
        raise StudyError(f"{name} is not a valid study: {_problems(error)}") from error
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
    return "; ".join(told).removesuffix("?") + ("?" if told[-1].endswith("?") else ".")


_MODELS: tuple[type[BaseModel], ...] = (
    StudyFile, SourceGroup, TaskEntry, Retrieval, LeftOut, ModelTuningBaseline, Halving, DataSpec
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
