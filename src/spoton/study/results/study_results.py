"""A study's measurements so far, as plain values: the only input of analysis and report.

The numbers may come from the cells of a study that spoton ran, or from other people's tables. Cells may be missing.
Nothing is computed here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from spoton.errors import DataError, StudyError
from spoton.files import atomic_write
from spoton.parsing import parse_json

Matrix: TypeAlias = NDArray[np.float32]
PromptMatrices: TypeAlias = Mapping[tuple[str, int], Matrix]
"""Prompts `[P, D]` by task and seed."""

RESULTS_FORMAT = "spoton-study-results-1"
RESULTS_FILE = "results.json"
PROMPTS_FILE = "prompts.safetensors"
# Baseline methods that are not transfers, as keys of `StudyResults.extra`.
MODEL_TUNING = "model-tuning"
MULTI_TASK_MODEL_TUNING = "multi-task-model-tuning"
WEIGHTED_AVERAGE = "weighted-average"
SCRATCH = "scratch"
NOISE = "noise"
"""Control: tuned from noise with the scale of a source's prompt."""

_SPLITS = ("validation", "test")
_TUPLES = ("sources", "targets", "candidates", "left_out")
_MAPPINGS = ("families", "metrics", "zero_shot", "majority", "classical", "learned_sources", "metadata")
_RUNS = ("runs", "other_runs")
_PROMPTS = ("source_keys", "target_keys", "source_values", "source_displacements", "target_displacements")


@dataclass(frozen=True)
class Score:
    """The main metric of one run, or the mean of several.

    Attributes:
        target: The tuned and scored task.
        source: The task whose prompt it started from, with this run's seed where the source has several. None: from
            scratch.
        seed: The run's seed. None: the score is a mean over seeds.
        score: 0 to 100 (metrics that can be negative: from -100).
        std: Sample standard deviation over the seeds of a mean, if known.
        n: Number of seeds in a mean, if known.
    """

    target: str
    source: str | None
    seed: int | None
    score: float
    std: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class TransferRun:
    """The course of one cell that tuned a prompt.

    Attributes:
        steps: Number of steps.
        looks: `step`, `validation` and perhaps `validation_loss` of each evaluation on the validation split.
        dropped: Number of steps after which successive halving ended it; None: it did not.
        best_step: Step of the evaluation whose prompt was kept; None: unknown.
    """

    steps: int
    looks: tuple[dict[str, float], ...]
    dropped: int | None = None
    best_step: int | None = None

    @property
    def kept_loss(self) -> float:
        """The validation loss of the prompt that was kept; NaN if unknown."""
        losses = (
            look.get("validation_loss", math.nan) for look in self.looks if look["step"] == self.best_step
        )
        return next(losses, math.nan)


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The known results of a study: scores, prompts, and their provenance.

    Attributes:
        sources: Source tasks, in display order.
        targets: Target tasks.
        validation: Scores on the validation split, by which everything is chosen.
        test: Scores on the test split, which are reported where there are any.
        zero_shot: Score of the bare model by target, on the reported split.
        majority: Score of the most frequent answer by target, on the reported split.
        classical: Score of TF-IDF with logistic regression by target, on the reported split, where known.
        source_keys: Task embeddings of source prompts.
        target_keys: Task embeddings of targets, tuned from scratch.
        source_values: Source prompts as transferred.
        source_displacements: Keys of source prompts minus their initial prompts, where those are known.
        target_displacements: The same for targets.
        families: Family of each task.
        metrics: Main metric by target.
        learned_sources: Whether a source's prompt had learned its own task, where known.
        candidates: Tasks scored only without transfer, among which to choose targets.
        left_out: Pairs (source, target, reason) that are not tried, and so are not missing.
        extra: Validation scores of other methods. A name is `model-tuning`, `multi-task-model-tuning`, or
            `weighted-average@3`, `weighted-average:per_token_average@3`, `multi-task-mixture@12`: method, similarity
            metric, k.
        extra_test: The same on the test split.
        runs: Course of transfer cells, by source, target and seed, where known.
        other_runs: The same for cells without a source, by method (`scratch`, `noise`), target and seed.
        metadata: Provenance as plain values: model, recipe, protocol, data hashes, versions, seconds by cell.

    Raises:
        DataError: A cell occurs twice, a score is not a percentage, or a task is not listed.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    validation: tuple[Score, ...]
    test: tuple[Score, ...] = ()
    zero_shot: Mapping[str, float] = field(default_factory=dict)
    majority: Mapping[str, float] = field(default_factory=dict)
    classical: Mapping[str, float] = field(default_factory=dict)
    source_keys: PromptMatrices = field(default_factory=dict)
    target_keys: PromptMatrices = field(default_factory=dict)
    source_values: PromptMatrices = field(default_factory=dict)
    source_displacements: PromptMatrices = field(default_factory=dict)
    target_displacements: PromptMatrices = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    learned_sources: Mapping[str, bool] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str, str], ...] = ()
    extra: Mapping[str, tuple[Score, ...]] = field(default_factory=dict)
    extra_test: Mapping[str, tuple[Score, ...]] = field(default_factory=dict)
    runs: Mapping[tuple[str, str, int], TransferRun] = field(default_factory=dict)
    other_runs: Mapping[tuple[str, str, int], TransferRun] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for where, scores in (
            ("validation", self.validation), ("test", self.test),
            *self.extra.items(), *((f"{name} (test)", found) for name, found in self.extra_test.items()),
        ):  # fmt: skip
            self._check(where, scores)

    def _check(self, where: str, scores: tuple[Score, ...]) -> None:
        for one in scores:
            if not math.isfinite(one.score) or not -100 <= one.score <= 100:
                raise DataError(
                    f"{where}: the score of {_name(one)} is {one.score}; expected a number from 0 to 100."
                )
            known = one.target in self.targets or (one.source is None and one.target in self.candidates)
            if not known or (one.source is not None and one.source not in self.sources):
                raise DataError(
                    f"{where}: there is a score of {_name(one)}, but the study's sources are "
                    f"{', '.join(self.sources)} and its targets {', '.join(self.targets)}."
                )
        places = Counter((one.target, one.source, one.seed) for one in scores)
        twice = [one for one in scores if places[one.target, one.source, one.seed] > 1]
        if twice:
            raise DataError(f"{where}: {_name(twice[0])} has more than one score. Keep one.")

    @property
    def reported_split(self) -> str:
        """`test` if a run from scratch and a transfer have test scores, else `validation`."""
        kinds = {one.source is None for one in self.test}
        return "test" if kinds == {True, False} else "validation"

    @property
    def untried(self) -> set[tuple[str, str]]:
        """The pairs of source and target that are left out."""
        return {(source, target) for source, target, _ in self.left_out}

    @cached_property
    def dropped(self) -> dict[tuple[str, str, int], int]:
        """Number of steps after which successive halving ended a transfer cell, by source, target and seed."""
        return {place: run.dropped for place, run in self.runs.items() if run.dropped is not None}

    @property
    def has_keys(self) -> bool:
        """Whether keys are compared; False: final prompts are compared, or there are no prompts."""
        return bool(self.source_keys) and not self.metadata.get("final_prompts_as_keys", False)

    def tasks_without_key(self) -> list[str]:
        """Returns sources and targets whose missing keys prevent comparison; none if there are no keys at all."""
        if not self.source_keys and not self.target_keys:
            return []
        sources, targets = ({task for task, _ in keys} for keys in (self.source_keys, self.target_keys))
        absent = [source for source in self.sources if source not in sources]
        return absent + [target for target in self.targets if target not in targets and target not in absent]

    @property
    def reported_extra(self) -> Mapping[str, tuple[Score, ...]]:
        """Scores of other methods on the reported split."""
        return self.extra_test if self.reported_split == "test" else self.extra

    @property
    def reported(self) -> tuple[Score, ...]:
        """The scores of the reported split."""
        return self.test if self.reported_split == "test" else self.validation

    def save(self, folder: Path) -> Path:
        """Writes a folder that `parse_results` reads: scores as JSON, prompts as safetensors.

        Raises:
            SpotonError: The folder cannot be written.
        """
        prompts = {
            f"{kind}|{seed}|{task}": np.ascontiguousarray(prompt, dtype=np.float32)
            for kind in _PROMPTS
            for (task, seed), prompt in sorted(getattr(self, kind).items())
        }
        if prompts:
            atomic_write(folder / PROMPTS_FILE, safetensors.numpy.save(prompts))
        else:  # removes the prompts of an earlier import
            (folder / PROMPTS_FILE).unlink(missing_ok=True)
        document = {
            "format": RESULTS_FORMAT,
            **{name: list(getattr(self, name)) for name in _TUPLES},
            **{name: dict(getattr(self, name)) for name in _MAPPINGS},
            **{split: [asdict(one) for one in getattr(self, split)] for split in _SPLITS},
            **{
                name: {method: [asdict(one) for one in scores] for method, scores in getattr(self, name).items()}
                for name in ("extra", "extra_test")
            },
            **{
                name: [[*place, asdict(run)] for place, run in getattr(self, name).items()] for name in _RUNS
            },
            "prompts": bool(prompts),
        }  # fmt: skip
        path = folder / RESULTS_FILE
        atomic_write(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
        return path


def parse_results(read: Callable[[str], bytes | None], place: str) -> StudyResults:
    """Returns results from the files of a folder at any place.

    Args:
        read: Returns the content of a file in the folder; None if it is missing.
        place: The folder's name in errors.

    Raises:
        StudyError: The folder holds no results, or one of its files is damaged.
        DataError: The scores contradict each other.
    """
    try:
        document = parse_json(_content(read, RESULTS_FILE, place))
        if not isinstance(document, dict) or document.get("format") != RESULTS_FORMAT:
            raise ValueError(f"expected the format {RESULTS_FORMAT}")
        values: dict[str, Any] = {split: _scores(document[split]) for split in _SPLITS}
        for name in ("extra", "extra_test"):
            values[name] = {method: _scores(scores) for method, scores in document[name].items()}
        if document["prompts"]:
            values |= _load_prompts(_content(read, PROMPTS_FILE, place))
        for name in ("sources", "targets", "candidates"):
            values[name] = tuple(document[name])
        values["left_out"] = tuple((source, target, why) for source, target, why in document["left_out"])
        for name in _RUNS:
            values[name] = {
                (first, target, seed): TransferRun(**run | {"looks": tuple(run["looks"])})
                for first, target, seed, run in document.get(name, ())
            }
        # Studies imported before sources could be marked lack this list.
        return StudyResults(**values, **{name: document.get(name, {}) for name in _MAPPINGS})
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise StudyError(
            f"{place}/{RESULTS_FILE} cannot be read as results of a study: {error}. Import them again."
        ) from error


def _content(read: Callable[[str], bytes | None], name: str, place: str) -> bytes:
    data = read(name)
    if data is None:
        raise StudyError(
            f"{place} has no {name}, so it holds no results of a study. "
            "Give the folder of a study, or make one with `spoton study import`."
        )
    return data


def _scores(rows: list[dict[str, Any]]) -> tuple[Score, ...]:
    return tuple(Score(**row) for row in rows)


def _load_prompts(data: bytes) -> dict[str, dict[tuple[str, int], Matrix]]:
    prompts: dict[str, dict[tuple[str, int], Matrix]] = {kind: {} for kind in _PROMPTS}
    for name, prompt in safetensors.numpy.load(data).items():
        kind, seed, task = name.split("|", 2)
        prompts[kind][task, int(seed)] = prompt
    return prompts


def _name(score: Score) -> str:
    start = "from scratch" if score.source is None else f"from {score.source}"
    return f"{score.target} {start}" + ("" if score.seed is None else f", seed {score.seed}")
