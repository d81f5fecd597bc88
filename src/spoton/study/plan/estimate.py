"""Estimates the cost of a study from published sizes alone: cells, steps, tokens, FLOP, and hours of named devices.

It reads neither weights nor rows and needs no network. An unknown size is replaced by an assumption, which the result
names. `cost.py` measures seconds on this machine; the hours here are computed, not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from spoton.errors import StudyError
from spoton.evaluation.calibration import ROWS as CALIBRATION_ROWS
from spoton.study.plan.cell_base import ROLES, Held, TaskRole
from spoton.study.plan.cells import Cell, MultiTaskMixture, Source
from spoton.study.plan.cost import Counted, TaskSize, count, mean_size
from spoton.study.plan.grid import PromptFacts, TaskFacts, cells_of
from spoton.study.plan.study_file import StudyFile
from spoton.study.plan.task_groups import TaskEntry
from spoton.tasks.catalog import is_task, task_info

USE = 0.4
"""Share of a device's peak that a step is assumed to reach."""

_HELD_OUT_OF = 0.1  # share of rows for each of validation and test if there is no official split
_TARGET_TOKENS = 2.0  # tokens of label words, if no rows are known
_OPEN_TARGET_TOKENS = 128.0


class _Task(BaseModel):
    """Published or counted sizes of a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: int | None = None
    input: float | None = None
    target: float | None = None


class _Model(BaseModel):
    """The shape of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["t5", "decoder"]
    layers: int
    width: int
    heads: int
    feed_forward: int
    key_heads: int | None = None
    vocabulary: int = 32128

    @property
    def inner(self) -> int:
        """Width of queries in a layer."""
        return self.heads * 64

    def layer(self) -> int:
        """Returns the number of weights of a layer with one attention and a gated feed-forward part."""
        keys = 64 * (self.key_heads or self.heads)
        return 2 * self.width * (self.inner + keys) + 3 * self.width * self.feed_forward


class _Published(BaseModel):
    """All of `published.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: dict[str, _Task]
    models: dict[str, _Model]
    devices: dict[str, float]


@cache
def _published() -> _Published:
    text = (resources.files("spoton.study.plan") / "published.yaml").read_text(encoding="utf-8")
    return _Published.model_validate(yaml.safe_load(text))


class Totals(NamedTuple):
    """Total cost of the cells of one kind.

    Attributes:
        cells: Number of cells.
        steps: Optimizer steps.
        tokens: Tokens through the model, in training and scoring; those of a prompt count every time they run.
        flop: Floating-point operations of the unavoidable products.
    """

    cells: int
    steps: float
    tokens: float
    flop: float


@dataclass(frozen=True)
class Estimate:
    """The cost of a study according to published sizes.

    Attributes:
        model: The frozen model.
        kinds: Totals by kind of cell.
        assumed: Assumptions about unknown sizes, one sentence each.
        missing: What is missing to run the study.
    """

    model: str
    kinds: Mapping[str, Totals]
    assumed: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def total(self) -> Totals:
        """All kinds together."""
        return Totals(*(sum(column) for column in zip(*self.kinds.values(), strict=True)))

    def hours(self) -> dict[str, float]:
        """Returns the hours of one device, by name, at `USE` of its peak."""
        return {
            name: self.total.flop / (peak * 1e12 * USE) / 3600 for name, peak in _published().devices.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        kinds = {kind: totals._asdict() for kind, totals in self.kinds.items()}
        return {
            "estimate": True, "model": self.model, **self.total._asdict(), "kinds": kinds,
            "device_hours": self.hours(), "use_of_peak": USE, "assumed": list(self.assumed),
            "missing": list(self.missing),
        }  # fmt: skip


def estimate(study: StudyFile, missing: tuple[str, ...] = ()) -> Estimate:
    """Counts a study's cells and their cost.

    Args:
        study: The study.
        missing: What was missing to plan it with model and rows.

    Raises:
        StudyError: No sizes are published for the model, or for some tasks; names all of them.
    """
    _require_known(study)
    model = _published().models[study.model]
    sizes = _Sizes(study)
    totals: dict[str, Totals] = {}
    cells = cells_of(study, Held("published", study.dtype), _facts, _prompts(study))
    sources = {cell.task: sizes.of(cell) for cell in cells if isinstance(cell, Source)}
    for cell in (one for one in cells if not one.work().is_nothing):
        mixed = mean_size(list(sources.values())) if isinstance(cell, MultiTaskMixture) else None
        counted = count(
            cell.work(), sizes.of(cell), cell.mode, repeats_prompts=model.kind == "t5", mixed=mixed
        )
        before = totals.get(cell.kind, Totals(0, 0, 0, 0))
        totals[cell.kind] = Totals(
            before.cells + 1, before.steps + counted.steps,
            before.tokens + counted.tokens + counted.score_tokens, before.flop + _flop(counted, model),
        )  # fmt: skip
    if study.sources.library is not None and study.sources.prompts is None:
        sizes.assumed.add("Prompts of the library are not named, so transfers from them are not counted.")
    return Estimate(study.model, totals, tuple(sorted(sizes.assumed)), missing)


def _require_known(study: StudyFile) -> None:
    """Refuses a study with a model or tasks of unknown size, and names all of them."""
    entries = [entry for role in ROLES for entry in study.tasks_of(role)]
    strange = sorted({entry.task for entry in entries if not is_task(entry.task)})
    told = [f"tasks that are not in the catalog: {', '.join(strange)}"] if strange else []
    if study.model not in _published().models:
        told.append(f"the model {study.model} (known: {', '.join(_published().models)})")
    if told:
        raise StudyError(
            f"The study cannot be planned from published sizes, since none are known of {'; and of '.join(told)}. "
            "Plan it where its model and rows are: spoton study plan FOLDER"
        )


def _facts(role: TaskRole, name: str) -> TaskFacts:
    return TaskFacts(f"published:{name}", "generate" if task_info(name).labels is None else "rank")


def _prompts(study: StudyFile) -> dict[str, PromptFacts]:
    """Returns facts for the library prompts that the study names, as if each came from a task of its name."""
    recipe = study.sources.recipe_of(TaskEntry(task="library"))
    return {
        name: PromptFacts(name, f"published:{name}", "", recipe, 0, "rank")
        for name in study.sources.prompts or ()
    }


class _Sizes:
    """Sizes of the tasks of a study, and assumptions about unknown ones."""

    def __init__(self, study: StudyFile) -> None:
        self._study = study
        self._splits: dict[tuple[TaskRole, str], tuple[int, int]] = {}
        self.assumed: set[str] = set()

    def of(self, cell: Cell) -> TaskSize:
        """Returns the size of a cell's task."""
        known, limit = _published().tasks.get(cell.task, _Task()), cell.work().max_input_tokens
        place = cell.role, cell.task
        if place not in self._splits:
            self._splits[place] = self._validation_and_test(*place, known)
        inputs, targets = known.input, known.target
        if inputs is None:
            inputs = float(limit)
            self.assumed.add(
                f"{cell.task}: no rows were counted, so inputs count as {limit} tokens, the maximum."
            )
        if targets is None:
            targets = _TARGET_TOKENS if task_info(cell.task).labels else _OPEN_TARGET_TOKENS
            self.assumed.add(f"{cell.task}: no rows were counted, so targets count as {targets:g} tokens.")
        train = self._study.sizes_of(cell.role).train or task_info(cell.task).train_size or CALIBRATION_ROWS
        return TaskSize(*self._splits[place], min(inputs, limit), targets, train)

    def _validation_and_test(self, role: TaskRole, name: str, known: _Task) -> tuple[int, int]:
        most, rows = self._study.sizes_of(role), known.validation
        if rows is None:
            rows = round(_HELD_OUT_OF * (task_info(name).train_size or 0))
            if most.validation is None or rows < most.validation:
                self.assumed.add(
                    f"{name}: its validation split counts as {rows} rows, a tenth of its training rows."
                )
        elif self._study.protocol == "honest":
            rows //= 2  # the other half is the test split
        return min(rows, most.validation or rows), min(rows, most.test or rows)


def _flop(counted: Counted, model: _Model) -> float:
    """Returns the floating-point operations of the products with weights, of attention, and of the output layer.

    A token costs two operations per weight forward, two more back to its input, and two more back to the weights if
    they are tuned. A pair of tokens that attend costs four operations per dimension of the query, and eight back.
    """
    back = 3.0 if counted.weights else 2.0
    inputs, targets = counted.input_tokens * back, counted.target_tokens * back
    inputs += counted.score_input_tokens
    targets += counted.score_target_tokens
    pairs = 3 * counted.pairs + counted.score_pairs
    if model.kind == "t5":
        cross_keys = 2 * model.width * model.inner  # the decoder's keys and values of the encoder's states
        read = model.layers * (model.layer() + cross_keys)
        # In addition to a layer like the encoder's: queries and output of the attention to the encoder.
        written = model.layers * (model.layer() + 2 * model.width * model.inner)
    else:
        read = written = model.layers * model.layer()
    output = model.width * model.vocabulary
    return 2 * (inputs * read + targets * (written + output)) + 4 * pairs * model.layers * model.inner
