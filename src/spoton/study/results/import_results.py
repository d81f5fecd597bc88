"""Studies of other people: score tables and prompt files, read into `Results`.

Scores are long-format CSV: ``source,target[,seed],score[,std]`` (``mean`` is taken for ``score``). Nothing in a file is
executed: arrays are read without pickle, PyTorch files with ``weights_only``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoton.errors import DataError
from spoton.exchange.matrix_files import load_prompt_matrix
from spoton.files import sha256_of_file
from spoton.study.results.study_results import Matrix, Results, Score

SCRATCH = frozenset({"", "none", "baseline", "scratch", "from-scratch", "from_scratch"})
ZERO_SHOT = frozenset({"zero-shot", "zero_shot"})
MAJORITY = frozenset({"majority"})
METHOD = "method:"
PROMPT_SUFFIXES = (".npy", ".pt", ".safetensors")

_SCORE_COLUMNS = ("score", "mean")
_COLUMNS = ("source", "target", "seed", "score", "mean", "std")


@dataclass(frozen=True)
class Table:
    """What one CSV says.

    Attributes:
        scores: Transfer and from-scratch scores.
        extra: Scores by other method.
        zero_shot: Score of the bare model by target.
        majority: Score of the most frequent answer by target.
    """

    scores: tuple[Score, ...]
    extra: dict[str, tuple[Score, ...]]
    zero_shot: dict[str, float]
    majority: dict[str, float]


def import_study(
    scores: Path,
    *,
    test: Path | None = None,
    baseline: Path | None = None,
    keys: Path | None = None,
    values: Path | None = None,
    families: dict[str, str] | None = None,
    scale: float = 1.0,
    seeds_averaged: int | None = None,
    name: str = "",
) -> Results:
    """Results from tables and prompt files.

    Args:
        scores: CSV of the scores by which everything is chosen.
        test: CSV of the scores that are reported; None: those of ``scores`` are.
        baseline: CSV ``target[,seed],score[,std]`` of runs from scratch, if they are not in ``scores``.
        keys: Folder of task embeddings, ``TASK.npy``, ``TASK.SEED.pt`` and so on; those of sources and targets alike.
        values: Folder of source prompts. Without ``keys`` they are compared instead.
        families: Kind of task by task.
        scale: What to multiply scores with; 100 for fractions.
        seeds_averaged: How many seeds a score without a seed is the mean of.
        name: What to call the study.

    Raises:
        DataError: A file is missing, a column or a number is, or tables contradict each other; says the line.
        PromptError: A prompt file cannot be read.
    """
    first = read_scores(scores, scale, seeds_averaged)
    second = read_scores(test, scale, seeds_averaged) if test else Table((), {}, {}, {})
    if baseline is not None:
        first = Table((*first.scores, *read_baseline(baseline, scale, seeds_averaged)), first.extra, {}, {})
    every = [*first.scores, *second.scores]
    sources = tuple(dict.fromkeys(one.source for one in every if one.source is not None))
    targets = tuple(dict.fromkeys(one.target for one in every))
    scratch = sum(one.source is None for one in first.scores)
    if not sources or not scratch:
        raise DataError(
            f"{scores} has {len(sources)} source tasks and {scratch} scores from scratch; a study needs both. Rows "
            "from scratch have an empty source, or `none` or `baseline`; or give them with --baseline."
        )
    notes = []
    found_keys, found_values = read_prompts(keys), read_prompts(values)
    if values is not None and keys is None:
        found_keys = found_values
        notes.append("Similarities are those of final prompts: there are no keys (early checkpoints).")
    _require_known([*found_keys, *found_values], {*sources, *targets})
    files = [path for path in (scores, test, baseline) if path is not None]
    return Results(
        sources, targets, first.scores, second.scores,
        zero_shot=second.zero_shot or first.zero_shot, majority=second.majority or first.majority,
        source_keys={place: key for place, key in found_keys.items() if place[0] in sources},
        target_keys={place: key for place, key in found_keys.items() if place[0] in targets},
        source_values={place: value for place, value in found_values.items() if place[0] in sources},
        families=families or {}, extra=first.extra, extra_test=second.extra,
        metadata={
            "name": name or scores.stem,
            "imported": {path.name: sha256_of_file(path) for path in files},
            "seeds_averaged": seeds_averaged, "notes": notes,
        },
    )  # fmt: skip


def read_scores(path: Path, scale: float = 1.0, seeds_averaged: int | None = None) -> Table:
    """Reads a table of scores.

    The source of a row is a task; or nothing, ``none`` or ``baseline`` for tuning from scratch; ``zero-shot``;
    ``majority``; or ``method:NAME`` for another method (`Results.extra`).

    Raises:
        DataError: The file cannot be read as such a table.
    """
    scores: list[Score] = []
    extra: dict[str, list[Score]] = {}
    single: dict[str, dict[str, float]] = {"zero-shot": {}, "majority": {}}
    for line, row in _rows(path, ("source", "target")):
        source = row["source"]
        where = f"{path}, line {line}"
        if source.startswith(METHOD):
            found = _score(where, row, None, scale, seeds_averaged)
            extra.setdefault(source.removeprefix(METHOD), []).append(found)
        elif source.lower() in ZERO_SHOT | MAJORITY:
            kind = "majority" if source.lower() in MAJORITY else "zero-shot"
            single[kind][row["target"]] = _score(where, row, None, scale, seeds_averaged).score
        else:
            task = None if source.lower() in SCRATCH else source
            scores.append(_score(where, row, task, scale, seeds_averaged))
    _require_percentages(path, scores)
    return Table(
        tuple(scores), {name: tuple(found) for name, found in extra.items()}, single["zero-shot"], single["majority"]
    )  # fmt: skip


def read_baseline(path: Path, scale: float = 1.0, seeds_averaged: int | None = None) -> tuple[Score, ...]:
    """Reads scores from scratch alone: ``target[,seed],score[,std]``.

    Raises:
        DataError: The file cannot be read as such a table.
    """
    rows = _rows(path, ("target",))
    return tuple(_score(f"{path}, line {line}", row, None, scale, seeds_averaged) for line, row in rows)


def read_families(path: Path) -> dict[str, str]:
    """Reads ``task,family``.

    Raises:
        DataError: The file cannot be read as such a table.
    """
    return {row["task"]: row["family"] for _, row in _rows(path, ("task", "family"), others=())}


def read_prompts(folder: Path | None) -> dict[tuple[str, int], Matrix]:
    """Reads every prompt of a folder, ``TASK`` or ``TASK.SEED`` with the ending of its format; seed 0 if not named.

    Raises:
        DataError: There is no such folder, or no prompt in it, or two of one task and seed.
        PromptError: A file is no prompt.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Give one with files TASK.npy or TASK.SEED.pt.")
    found: dict[tuple[str, int], Matrix] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in PROMPT_SUFFIXES:
            continue
        task, _, seed = path.stem.rpartition(".")
        place = (task, int(seed)) if task and seed.isdecimal() else (path.stem, 0)
        if place in found:
            raise DataError(f"{folder} has more than one prompt of {place[0]}, seed {place[1]}. Keep one.")
        found[place] = load_prompt_matrix(path).numpy()
    if not found:
        raise DataError(
            f"{folder} has no file ending in {', '.join(PROMPT_SUFFIXES)}. Give the folder of the prompts."
        )
    return found


def _rows(
    path: Path, needed: Sequence[str], others: Sequence[str] = _SCORE_COLUMNS
) -> Iterable[tuple[int, dict[str, str]]]:
    """Line number and cells of each row, stripped.

    Args:
        path: The CSV.
        needed: Columns that have to be there.
        others: Columns of which one has to be there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [(column or "").strip() for column in reader.fieldnames or ()]
            absent = [column for column in needed if column not in header]
            if absent or (others and not set(others) & set(header)):
                wanted = ", ".join((*needed, *([" or ".join(others)] if others else [])))
                raise DataError(
                    f"{path} has the columns {', '.join(header) or '(none)'}; expected {wanted}"
                    f"{', and seed and std if there are any' if others else ''}. Name them so in its first line."
                )
            reader.fieldnames = header
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}. Check the path.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as CSV: {error}. Save it as UTF-8 CSV with commas."
        ) from error
    for line, row in rows:
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {line}: found {_cells(row)} cells, expected {len(header)}. Quote commas."
            )
    return [(line, {column: cell.strip() for column, cell in row.items()}) for line, row in rows]


def _cells(row: dict[Any, Any]) -> int:
    return sum(1 for key, cell in row.items() if key is not None and cell is not None) + len(
        row.get(None) or []
    )


def _score(where: str, row: dict[str, str], source: str | None, scale: float, averaged: int | None) -> Score:
    if not row["target"]:
        raise DataError(f"{where}: the target is empty. Every row needs one.")
    column = next(column for column in _SCORE_COLUMNS if column in row)
    seed = _number(where, "seed", row.get("seed", ""))
    std = _number(where, "std", row.get("std", ""))
    score = _number(where, column, row[column])
    if score is None or (seed is not None and seed != int(seed)):
        what = f"{column} is empty" if score is None else f"seed is {row['seed']}, no whole number"
        raise DataError(f"{where}: {what}. Leave the row out, or fill it in.")
    return Score(
        row["target"], source, None if seed is None else int(seed), score * scale,
        None if std is None else std * scale, averaged if seed is None else None,
    )  # fmt: skip


def _number(where: str, column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {column} is {cell!r}, not a number. Leave the row out, or correct it.")
    return number


def _require_percentages(path: Path, scores: Sequence[Score]) -> None:
    if scores and all(-1 <= one.score <= 1 for one in scores):
        raise DataError(
            f"All scores of {path} are between -1 and 1; expected percentages. Use --scale 100 if they are fractions."
        )


def _require_known(prompts: Iterable[tuple[str, int]], tasks: set[str]) -> None:
    unknown = sorted({task for task, _ in prompts} - tasks)
    if unknown:
        raise DataError(
            f"There are prompts of {', '.join(unknown)}, but the scores name only {', '.join(sorted(tasks))}. "
            "Name the files as the tasks are named in the CSV: TASK.npy or TASK.SEED.npy."
        )
