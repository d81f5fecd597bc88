"""Collects results from a study's finished cells; needs only the study's folder, neither model nor rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from spoton.errors import StudyError
from spoton.evaluation.intervals import wilson
from spoton.study.plan.study_file import StudyFile, StudyMethod, parse_study_file
from spoton.study.results.study_results import (
    MODEL_TUNING,
    MULTI_TASK_MODEL_TUNING,
    NOISE,
    RESULTS_FILE,
    SCRATCH,
    Matrix,
    Score,
    StudyResults,
    TransferRun,
    parse_results,
)
from spoton.study.run.scheduler import PLAN, Planned, read_plan
from spoton.study.run.store import STUDY_FILE, Store
from spoton.transfer.ranking.displacement import displacement

_MIXTURE = "model-mixture"
_NOT_OF_TARGETS = ("source", _MIXTURE)  # kinds of cells whose tasks are not targets
_METHODS: tuple[str, ...] = get_args(StudyMethod)


def results_in(place: str | Path) -> StudyResults:
    """Returns the results of a study that ran or was imported, from its folder or URL.

    Raises:
        StudyError: The folder holds neither.
    """
    store = Store(place)
    if store.read(PLAN) is not None:
        return collect(place)
    if store.read(STUDY_FILE) is not None and store.read(RESULTS_FILE) is None:
        raise StudyError(f"The study {place} has not run yet. Run it: spoton study run {place}")
    return parse_results(store.read, store.place)


def collect(place: str | Path) -> StudyResults:
    """Returns the results of the finished cells in the study's plan; cells of earlier plans are left out.

    Cells of tasks that have left the study file since it was planned are left out too, with a note.

    Args:
        place: The study's folder or URL.

    Raises:
        StudyError: The study has no plan, or no cell is finished.
    """
    store = Store(place)
    text = store.read(STUDY_FILE)
    if text is None:
        raise StudyError(f"{place} has no {STUDY_FILE}. `spoton study new {place}` writes one to start from.")
    study = parse_study_file(text.decode("utf-8", "replace"), f"{store.place}/{STUDY_FILE}")
    plan = read_plan(store)
    finished = _finished(store, plan)
    cells = _named_in(study, finished)
    if not cells:
        raise StudyError(f"No cell of {place} is finished yet. Run the study: spoton study run {place}")
    notes = _note_on(finished, cells, store.place)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        by_kind.setdefault(cell["kind"], []).append(cell)
    for kind in (MODEL_TUNING, MULTI_TASK_MODEL_TUNING):
        by_kind[kind] = _best_rates(by_kind.get(kind, ()))
    tuned = [*by_kind.get("scratch", ()), *by_kind.get("transfer", ())]
    zero_shot = by_kind.get("zero-shot", ())
    prompts = {kind: _Embeddings.of(store, by_kind.get(kind, ())) for kind in ("source", SCRATCH)}
    own, theirs = prompts["source"], prompts[SCRATCH]
    targets = tuple(entry.task for entry in study.targets.tasks)
    sources = [entry.task for entry in study.sources.tasks]
    sources += [cell["task"] for cell in by_kind.get("source", ()) if "library" in cell]
    return StudyResults(
        sources=tuple(sources), targets=targets,
        validation=_scores(tuned, "validation"), test=_scores(tuned, "test"),
        zero_shot={cell["task"]: cell["scores"]["test"] for cell in zero_shot},
        majority={cell["task"]: cell["majority"]["test"] for cell in zero_shot},
        classical={cell["task"]: cell["classical"]["test"] for cell in zero_shot if cell.get("classical")},
        source_keys=own.keys,
        target_keys=theirs.among(targets).keys,
        source_displacements=own.displacements, target_displacements=theirs.among(targets).displacements,
        source_values=own.values,
        families={cell["task"]: cell["family"] for cell in cells},
        learned_sources=_learned(by_kind),
        metrics={cell["task"]: cell["metric"] for cell in cells if cell["kind"] not in _NOT_OF_TARGETS},
        candidates=tuple(entry.task for entry in study.candidates),
        left_out=_left_out(study, plan, sources, targets),
        runs={(cell["source"], cell["task"], cell["seed"]): _run(cell) for cell in by_kind.get("transfer", ())},
        other_runs={
            (kind, cell["task"], cell["seed"]): _run(cell)
            for kind in (SCRATCH, NOISE)
            for cell in by_kind.get(kind, ())
            if cell["task"] in targets
        },
        extra=_extra(by_kind, "validation"), extra_test=_extra(by_kind, "test"),
        metadata=_metadata(_name_of(store), study, cells, len(plan) - len(finished) + len(cells), notes)
        | _tuned(by_kind, theirs.keys),
    )  # fmt: skip


def _finished(store: Store, plan: Sequence[Planned]) -> list[dict[str, Any]]:
    """Returns the results of the finished cells of a plan.

    Raises:
        StudyError: Some are damaged.
    """
    there = store.names("cells", ".json")
    results = dict(store.results(one.name for one in plan if one.name in there))
    if damaged := [name for name, cell in results.items() if cell is None]:
        raise StudyError(
            f"{store.place} has damaged results: {', '.join(damaged[:5])}. `spoton study run {store.place}` makes them "
            "again."
        )
    return [cell for cell in results.values() if cell is not None]


def _named_in(study: StudyFile, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the cells of sources, targets and candidates that the study file names, and that need only such cells."""
    targets = {entry.task for entry in study.targets.tasks}
    alone = targets | {entry.task for entry in study.candidates}
    sources = {entry.task for entry in study.sources.tasks} | set(study.sources.prompts or ())
    whole_library = study.sources.library is not None and study.sources.prompts is None

    def is_named(cell: dict[str, Any]) -> bool:
        if cell["kind"] == "source":
            return cell["task"] in sources or (whole_library and "library" in cell)
        if cell["kind"] == _MIXTURE:
            return cell["task"] in [entry.task for entry in study.tasks_of("mixture")]
        return cell["task"] in (alone if cell["kind"] in (SCRATCH, "zero-shot") else targets)

    gone = {cell["name"] for cell in cells if not is_named(cell)}
    return [cell for cell in cells if cell["name"] not in gone and gone.isdisjoint(cell.get("needs") or ())]


def _note_on(finished: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]], place: str) -> list[str]:
    """Returns a sentence on finished cells that are left out; none if all are in the study file."""
    kept = {cell["name"] for cell in cells}
    gone = [cell for cell in finished if cell["name"] not in kept]
    if not gone:
        return []
    here = {(cell["kind"] == "source", cell["task"]) for cell in cells}
    places = dict.fromkeys((cell["kind"] == "source", cell["task"]) for cell in gone)
    names = [
        f"{'source' if is_source else 'target'} {task}"
        for is_source, task in places
        if (is_source, task) not in here
    ]
    return [
        f"{len(gone)} finished cells are left out, since they need what the study file no longer names: "
        f"{', '.join(names)}. `spoton study plan {place}` plans the study as it is now."
    ]


def _name_of(store: Store) -> str:
    if store.local is not None:
        return store.local.resolve().name
    return store.place.rstrip("/").rpartition("/")[2]


def _left_out(
    study: StudyFile, plan: Sequence[Planned], sources: Sequence[str], targets: Sequence[str]
) -> tuple[tuple[str, str, str], ...]:
    """Returns the pairs that are not tried: those of the study file, and sources that know the target's rows or texts.

    The plan has no run of the latter, and so they are not missing. It is the only trace of them, since finding them
    takes the rows.
    """
    words = {
        kind: {one.words for one in plan if one.kind == kind} for kind in ("source", "scratch", "transfer")
    }
    planned = {one.rpartition(", seed ")[0] for one in words["transfer"]}
    known = {one.removeprefix("source ").rpartition(", ")[0] for one in words["source"]}
    scored = {one.rpartition(": from scratch")[0] for one in words["scratch"]}
    found = {(pair.source, pair.target): pair.why for pair in study.leave_out}
    for source in (one for one in sources if one in known):
        for target in (one for one in targets if one in scored and one != source):
            if f"{source} -> {target}" not in planned:
                found.setdefault((source, target), "the source was tuned on rows or texts of the target")
    return tuple((source, target, why) for (source, target), why in found.items())


def _learned(by_kind: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, bool]:
    """Returns whether each source's prompt beats the most frequent answer on its own task.

    It does if the lower end of the 95 % interval of its accuracy, the mean over its seeds, is higher. All seeds score
    the same rows, so the rows count once. Where the most frequent answer is not known, only a source that is not better
    than guessing among its labels is judged: it has not learned. Sources with metrics other than accuracy are left out.
    """
    majority = {cell["task"]: cell["majority"] for cell in by_kind.get("zero-shot", ())}
    by_task: dict[str, list[dict[str, Any]]] = {}
    for cell in by_kind.get("source", ()):
        if cell["metric"] == "accuracy" and cell.get("labels"):
            by_task.setdefault(cell["task"], []).append(cell)
    learned = {}
    for task, cells in by_task.items():
        split = "test" if all("test" in cell["scores"] for cell in cells) else "validation"
        if any(split not in cell["scores"] or not cell["splits"].get(split) for cell in cells):
            continue  # a library's prompt whose card does not say
        rows = cells[0]["splits"][split]
        right = rows * statistics.mean(cell["scores"][split] for cell in cells) / 100
        floor = cells[0].get("majority", majority.get(task, {})).get(split)
        ahead = wilson(right, rows).low > (100 / cells[0]["labels"] if floor is None else floor)
        if floor is not None or not ahead:
            learned[task] = ahead
    return learned


def _scores(cells: Iterable[dict[str, Any]], split: str) -> tuple[Score, ...]:
    return tuple(
        Score(cell["task"], cell["source"], cell["seed"], cell["scores"][split])
        for cell in cells
        if split in cell["scores"]
    )


def _extra(by_kind: Mapping[str, Sequence[dict[str, Any]]], split: str) -> dict[str, tuple[Score, ...]]:
    """Returns scores of the methods with separate runs, by method, similarity and k."""
    found: dict[str, list[Score]] = {}
    for method in _METHODS:
        for cell in by_kind.get(method, ()):
            name = f"{method}:{cell['similarity']}@{cell['k']}"
            found.setdefault(name, []).append(Score(cell["task"], None, cell["seed"], cell["scores"][split]))
    for method in (MODEL_TUNING, MULTI_TASK_MODEL_TUNING, NOISE):
        for cell in by_kind.get(method, ()):
            if split in cell["scores"]:
                score = Score(cell["task"], None, cell["seed"], cell["scores"][split])
                found.setdefault(method, []).append(score)
    return {name: tuple(scores) for name, scores in found.items()}


def _best_rates(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the cell that is best by validation of every target and seed; of equal ones the first in the plan."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in cells:
        other = best.setdefault((cell["task"], cell["seed"]), cell)
        if cell["scores"].get("validation", -math.inf) > other["scores"].get("validation", -math.inf):
            best[cell["task"], cell["seed"]] = cell
    return list(best.values())


class _Embeddings(NamedTuple):
    """Prompts of cells and their task embeddings, `[P, D]` each, by task and seed, where known."""

    keys: dict[tuple[str, int], Matrix]
    values: dict[tuple[str, int], Matrix]
    displacements: dict[tuple[str, int], Matrix]

    @classmethod
    def of(cls, store: Store, cells: Iterable[dict[str, Any]]) -> _Embeddings:
        """Reads the prompt of every cell, once."""
        found = cls({}, {}, {})
        for cell in cells:
            prompt = store.prompt(cell["name"])
            for kind, tensor in zip(found, (prompt.key, prompt.value, displacement(prompt)), strict=True):
                if tensor is not None:
                    kind[cell["task"], cell["seed"]] = tensor.numpy().astype(np.float32)
        return found

    def among(self, tasks: Sequence[str]) -> _Embeddings:
        """Returns the prompts of some tasks."""
        return _Embeddings(
            *({place: one for place, one in kind.items() if place[0] in tasks} for kind in self)
        )


def _run(cell: dict[str, Any]) -> TransferRun:
    return TransferRun(cell["steps"], tuple(cell["looks"]), cell.get("dropped"), cell["best_step"])


def _metadata(
    name: str, study: StudyFile, cells: Sequence[dict[str, Any]], planned: int, notes: Sequence[str]
) -> dict[str, Any]:
    """Returns the provenance of the numbers."""
    first = cells[0]
    recipes = {
        role: {
            key: value
            for key, value in next((c["recipe"] for c in cells if c["kind"] == kind), {}).items()
            if key != "seed"
        }
        for role, kind in (("sources", "source"), ("targets", "scratch"))
    }
    return {
        "name": name, "model": first["model"], "model_fingerprint": first["model_fingerprint"],
        "dtype": first["dtype"], "protocol": study.protocol, "seeds": ", ".join(map(str, study.seeds)),
        "cells": f"{len(cells)} of {planned}", "recipe": recipes,
        **({"halving": study.halving.model_dump()} if study.halving else {}),
        **({"model_tuning_rates": study.model_tuning.learning_rates} if study.model_tuning else {}),
        "rows": {_role(cell): _rows(cell) for cell in cells},
        "versions": first["versions"], "seconds": {cell["name"]: cell["seconds"] for cell in cells},
        "notes": [*notes, *sorted({cell["message"] for cell in cells if cell.get("message")})],
    }  # fmt: skip


def _tuned(by_kind: Mapping[str, Sequence[dict[str, Any]]], prompts: Mapping[Any, Matrix]) -> dict[str, Any]:
    """Returns the number of tuned parameters per task, by method, and their bytes in float32."""
    sizes = {"prompt": max((prompt.size for prompt in prompts.values()), default=0)}
    sizes["model"] = max((cell["tuned_parameters"] for cell in by_kind.get(MODEL_TUNING, ())), default=0)
    return {"tuned": {name: {"parameters": n, "bytes": 4 * n} for name, n in sizes.items() if n}}


def _role(cell: dict[str, Any]) -> str:
    group = {"source": "source", _MIXTURE: "mixture"}.get(cell["kind"], "target")
    return f"{cell['task']} as {group}"


def _rows(cell: dict[str, Any]) -> str:
    sizes = " / ".join(str(cell["splits"].get(split, "unknown")) for split in ("train", "validation", "test"))
    return f"{sizes}, hash {cell['data_hash']}, {cell['source_of_rows'].rpartition('/')[2]}"
