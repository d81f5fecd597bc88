"""Imports other people's studies: reads score tables and prompt files into `StudyResults`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from spoton.errors import DataError, StudyError
from spoton.files import sha256_of_file
from spoton.study.results.prompt_files import read_prompts, require_known
from spoton.study.results.score_tables import (
    AS_IS,
    ReadOptions,
    ScoreTable,
    read_baseline,
    read_scores,
    require_one_scale,
)
from spoton.study.results.study_results import PROMPTS_FILE, RESULTS_FILE, Score, StudyResults
from spoton.study.run.scheduler import PLAN
from spoton.study.run.store import STUDY_FILE

_Fact = TypeVar("_Fact")

FINAL_PROMPTS = "Similarities are those of final prompts: there are no keys (early checkpoints)."


@dataclass(frozen=True)
class ImportedFiles:
    """The files that a study is imported from.

    Attributes:
        scores: Table of the scores by which everything is chosen.
        test: Table of the reported scores; None: those of `scores`.
        baseline: Table `target[,seed],score[,std]` of runs from scratch, if they are not in `scores`.
        keys: Folder of task embeddings of sources and targets.
        values: Folder of source prompts. Without `keys`, these are compared instead.
        families: Family of each task.
        learned: Whether a source had learned its own task.
    """

    scores: Path
    test: Path | None = None
    baseline: Path | None = None
    keys: Path | None = None
    values: Path | None = None
    families: Mapping[str, str] = field(default_factory=dict)
    learned: Mapping[str, bool] = field(default_factory=dict)


def import_study(
    files: ImportedFiles,
    options: ReadOptions = AS_IS,
    name: str = "",
) -> StudyResults:
    """Returns results from tables and prompt files.

    Args:
        files: The files to read.
        options: How numbers become scores.
        name: Name of the study.

    Raises:
        DataError: A file, a column or a number is missing, or tables contradict each other; the message names the
            line.
        PromptError: A prompt file cannot be read.
    """
    first = read_scores(files.scores, options)
    second = read_scores(files.test, options) if files.test else ScoreTable()
    scores = first.scores
    if files.baseline is not None:
        scratch = read_baseline(files.baseline, options)
        if not options.accept_scale:
            require_one_scale(first, scratch, (files.scores, files.baseline))
        scores = _with_baseline(first, scratch)
    every = [*scores, *second.scores]
    sources = tuple(dict.fromkeys(one.source for one in every if one.source is not None))
    targets = tuple(dict.fromkeys(one.target for one in every))
    _require_both(files.scores, sources, scores)
    tasks = tuple(dict.fromkeys((*sources, *targets)))
    keys, values = read_prompts(files.keys, tasks), read_prompts(files.values, tasks)
    require_known({**keys, **values}, tasks)
    notes = [*first.notes, *second.notes, *_alike(tasks)]
    final = files.values is not None and files.keys is None
    if final:
        keys = values
        notes.append(FINAL_PROMPTS)
    return StudyResults(
        sources, targets, scores, second.scores,
        zero_shot=second.zero_shot or first.zero_shot, majority=second.majority or first.majority,
        source_keys={place: key for place, key in keys.items() if place[0] in sources},
        target_keys={place: key for place, key in keys.items() if place[0] in targets},
        source_values={place: value for place, value in values.items() if place[0] in sources},
        families=_of_tasks(files.families, tasks), extra=first.extra, extra_test=second.extra,
        learned_sources=_of_tasks(files.learned, sources),
        metadata={
            "name": name or files.scores.stem,
            "imported": {
                path.name: sha256_of_file(path)
                for path in (files.scores, files.test, files.baseline)
                if path is not None
            },
            "seeds_averaged": options.seeds_averaged, "final_prompts_as_keys": final, "notes": notes,
        },
    )  # fmt: skip


def require_free(folder: Path, *, replace: bool) -> None:
    """Refuses a folder where an import would overwrite something, or mix with a study that ran.

    Args:
        folder: Folder for the import.
        replace: Whether to replace an earlier import.

    Raises:
        StudyError: The message says what the folder holds.
    """
    ran = next((name for name in (STUDY_FILE, PLAN, "cells") if (folder / name).exists()), None)
    if ran is not None:
        raise StudyError(
            f"{folder} holds a study of its own ({ran}), which an import does not replace. Choose another --out."
        )
    there = next((name for name in (RESULTS_FILE, PROMPTS_FILE) if (folder / name).exists()), None)
    if there is not None and not replace:
        raise StudyError(
            f"{folder} holds an imported study already ({there}). Choose another --out, or use --replace."
        )


def _with_baseline(first: ScoreTable, scratch: ScoreTable) -> tuple[Score, ...]:
    for cell, line in scratch.lines.items():
        if cell in first.lines:
            raise DataError(
                f"{cell[1]} from scratch has more than one score: {first.lines[cell]}, and {line}. Keep one."
            )
    return (*first.scores, *scratch.scores)


def _require_both(path: Path, sources: tuple[str, ...], scores: Iterable[Score]) -> None:
    scratch = sum(one.source is None for one in scores)
    if not sources or not scratch:
        raise DataError(
            f"{path} has {len(sources)} source tasks and {scratch} scores from scratch; a study needs both. Rows from "
            "scratch have an empty source, or `none`, `random` or `baseline`; name another with "
            "--scratch-name, or give "
            "them with --baseline."
        )


def _alike(tasks: Iterable[str]) -> list[str]:
    """Returns a note on tasks that differ only by case: a task's score on itself would count as a transfer."""
    by_name: dict[str, list[str]] = {}
    for task in tasks:
        by_name.setdefault(task.casefold(), []).append(task)
    return [
        f"The tasks {' and '.join(names)} differ by case alone and are taken as different tasks. If they are one, "
        "spell them alike: otherwise its score on itself counts as a transfer."
        for names in by_name.values()
        if len(names) > 1
    ]


def _of_tasks(facts: Mapping[str, _Fact], tasks: Iterable[str]) -> dict[str, _Fact]:
    """Returns the facts about the given tasks, whose names may differ by case."""
    folded = {task.casefold(): fact for task, fact in facts.items()}
    known = {task: facts.get(task, folded.get(task.casefold())) for task in tasks}
    return {task: fact for task, fact in known.items() if fact is not None and fact != ""}
