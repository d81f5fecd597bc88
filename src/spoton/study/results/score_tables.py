"""Reads other people's score tables: interprets their columns, sources and numbers.

Long tables have one row per score: `source,target[,seed],score[,std]`. Headings may have any case and any of the usual
names; `stderr` becomes a standard deviation. Wide tables (`TableFile`) have one row per source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spoton.errors import DataError
from spoton.study.results.score_arrays import is_pair
from spoton.study.results.study_results import Score
from spoton.study.results.tables import TableFile, TableRow, is_matrix, read_table, unfold

SCRATCH_NAMES = frozenset(
    {"", "none", "baseline", "scratch", "from-scratch", "from_scratch", "random", "random-init"}
)
ZERO_SHOT = frozenset({"zero-shot", "zero_shot"})
MAJORITY = frozenset({"majority"})
METHOD = "method:"

_NAMES = {
    "source": ("source", "source_task", "source task", "src", "from"),
    "target": ("target", "target_task", "target task", "tgt", "to"),
    "seed": ("seed", "random_seed", "run"),
    "score": (
        "score",
        "mean",
        "accuracy",
        "acc",
        "value",
        "test_score",
        "performance",
        "metric_value",
        "result",
    ),
    "std": ("std", "sd", "stdev", "std_dev", "standard_deviation", "deviation", "score_std"),
    "stderr": ("stderr", "se", "sem", "std_err", "standard_error"),
    "n": ("n", "n_seeds", "num_seeds", "seeds", "runs"),
}
"""Names of each column, the most likely first."""

_MEANS = ("avg", "average", "mean", "overall", "macro avg", "macro average")

# The sample standard deviation of two seeds that score 0 and 100.
_LARGEST_STD = 100 / math.sqrt(2)


@dataclass(frozen=True)
class ScoreTable:
    """The contents of one table.

    Attributes:
        scores: Transfer and from-scratch scores.
        extra: Scores of other methods, by method.
        zero_shot: Score of the bare model by target.
        majority: Score of the most frequent answer by target.
        lines: File and line of each cell (source, target, seed).
        notes: Notes for the reader.
    """

    scores: tuple[Score, ...] = ()
    extra: dict[str, tuple[Score, ...]] = field(default_factory=dict)
    zero_shot: dict[str, float] = field(default_factory=dict)
    majority: dict[str, float] = field(default_factory=dict)
    lines: dict[tuple[str | None, str, int | None], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadOptions:
    """How numbers of a table become scores.

    Attributes:
        scale: Factor for scores; 100 for fractions.
        seeds_averaged: Number of seeds in the mean of a score without a seed, if no column gives it.
        wide: Whether the table is a matrix with sources in rows and targets in columns.
        accept_scale: Whether to accept scores even if some look like fractions.
        scratch_name: The table's name for tuning from scratch; None: any of `SCRATCH`.
    """

    scale: float = 1.0
    seeds_averaged: int | None = None
    wide: bool = False
    accept_scale: bool = False
    scratch_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses an invalid scale."""
        if not 0 < self.scale < math.inf:
            raise DataError(
                f"--scale {self.scale:g} cannot be a factor of scores. Use 1, or 100 for fractions."
            )

    def is_scratch(self, source: str) -> bool:
        """Returns whether a source name stands for tuning from scratch."""
        if self.scratch_name is not None:
            return source.lower() == self.scratch_name.lower()
        return source.lower() in SCRATCH_NAMES


AS_IS = ReadOptions()
"""Options for long tables of percentages with the usual names."""


def read_scores(path: Path, options: ReadOptions = AS_IS) -> ScoreTable:  # frozen
    """Reads a table of scores.

    The source of a row is a task; empty, `none`, `random` or `baseline` for tuning from scratch; `zero-shot`;
    `majority`; or `method:NAME` for another method (`StudyResults.extra`).

    Raises:
        DataError: The file cannot be read as such a table; says the line.
    """
    scores: dict[tuple[str | None, str, int | None], Score] = {}
    lines: dict[tuple[str | None, str, int | None], str] = {}
    named: dict[tuple[str | None, str, int | None], str] = {}
    extra: dict[str, list[Score]] = {}
    single: dict[str, dict[str, float]] = {"zero-shot": {}, "majority": {}}
    others: dict[tuple[str, str, int | None], str] = {}
    for row in _rows(path, options, ("source", "target", "score")):
        source = row.cells["source"]
        score = _score(row, None if options.is_scratch(source) else source, options)
        is_single = source.lower() in ZERO_SHOT | MAJORITY
        if is_single or source.startswith(METHOD):
            # The bare model and the most frequent answer have no seeds, so a second score of a target is an error.
            place = (source.lower() if is_single else source, score.target, None if is_single else score.seed)
            if place in others:
                raise DataError(
                    f"{score.target} has more than one score of {source}: {others[place]}, and {row.where}. Keep one."
                )
            others[place] = row.where
        if source.startswith(METHOD):
            if not source.removeprefix(METHOD):
                raise DataError(
                    f"{row.where}: the source is {source!r}; expected the name of a method behind it."
                )
            extra.setdefault(source.removeprefix(METHOD), []).append(replace(score, source=None))
        elif is_single:
            single["majority" if source.lower() in MAJORITY else "zero-shot"][score.target] = score.score
        else:
            cell = (score.source, score.target, score.seed)
            if cell in scores:
                raise _twice(cell, lines[cell], row.where, named[cell], source)
            scores[cell], lines[cell], named[cell] = score, row.where, source
    found = tuple(scores.values())
    notes = () if options.accept_scale else _check_scale(path, found, lines)
    return ScoreTable(
        found, {name: tuple(rows) for name, rows in extra.items()}, single["zero-shot"], single["majority"], lines,
        notes,
    )  # fmt: skip


def read_baseline(path: Path, options: ReadOptions = AS_IS) -> ScoreTable:  # frozen
    """Reads only scores from scratch: `target[,seed],score[,std]`.

    Raises:
        DataError: The file cannot be read as such a table; says the line.
    """
    scores: dict[tuple[str | None, str, int | None], Score] = {}
    lines: dict[tuple[str | None, str, int | None], str] = {}
    for row in _rows(path, options, ("target", "score")):
        score = _score(row, None, options)
        cell = (None, score.target, score.seed)
        if cell in scores:
            raise _twice(cell, lines[cell], row.where, "", "")
        scores[cell], lines[cell] = score, row.where
    found = tuple(scores.values())
    notes = () if options.accept_scale else _check_scale(path, found, lines)
    return ScoreTable(found, lines=lines, notes=notes)


def read_families(path: Path) -> tuple[dict[str, str], dict[str, bool]]:
    """Reads `task,family[,learned]`: families, and which sources had learned their own task (yes or no).

    Raises:
        DataError: The file cannot be read as such a table.
    """
    table = read_table(path)
    if not {"task", "family"} <= set(table.names):
        raise DataError(
            f"{path} has the columns {_headings(table)}; expected task, family and perhaps learned."
        )
    families, learned = {}, {}
    for row in table.rows:
        families[row.cells["task"]] = row.cells["family"]
        if word := row.cells.get("learned", "").lower():
            if word not in ("yes", "no", "true", "false"):
                raise DataError(f"{row.where}: learned is {word!r}; expected yes, no, or nothing.")
            learned[row.cells["task"]] = word in ("yes", "true")
    return families, learned


def require_one_scale(first: ScoreTable, second: ScoreTable, names: tuple[Path, Path]) -> None:
    """Refuses two tables if one has fractions and the other percentages for a target.

    Raises:
        DataError: Names both files and the targets.
    """
    largest = [_largest_by_target(table.scores) for table in (first, second)]
    shared = [target for target in largest[0] if target in largest[1]]
    for small, large in ((0, 1), (1, 0)):
        fractions = [t for t in shared if 0 < largest[small][t] <= 1 and largest[large][t] > 10]
        if fractions:
            raise DataError(
                f"The scores of {', '.join(fractions[:3])} are at most 1 in {names[small]} and above 10 in "
                f"{names[large]}: fractions next to percentages. Bring both to one scale, or use "
                "--accept-scale if they are "
                "right."
            )


def _rows(path: Path, options: ReadOptions, needed: Sequence[str]) -> Iterable[TableRow]:
    table = read_table(path)
    if options.wide and "source" in needed:
        _require_matrix(table, options)
        return unfold(table)
    columns = {role: _column(table, role) for role in _NAMES}
    absent = [role for role in needed if columns[role] is None]
    if absent:
        if "source" in needed and is_matrix(table) and table.rows:
            raise DataError(
                f"{path} looks like a matrix, one row a source and one column a target. Use --wide if it is."
            )
        raise DataError(
            f"{path} has the columns {_headings(table)}; expected {', '.join(needed)}, and seed and std if there are "
            "any. Name them so in its first line."
        )
    return [
        TableRow(row.where, {role: row.cells[name] for role, name in columns.items() if name is not None})
        for row in table.rows
    ]


def _require_matrix(table: TableFile, options: ReadOptions) -> None:
    """Refuses a long table as a matrix: where all cells are numbers, its seeds and scores would count as targets.

    Also refuses a transposed matrix, and one with a column of averages, which would count as a target.
    """
    roles = {role: next((name for name in _NAMES[role] if name in table.names), None) for role in _NAMES}
    if all(roles[role] for role in ("source", "target", "score")):
        raise DataError(
            f"{table.path} looks like a table with one row a score: it has the columns {roles['source']}, "
            f"{roles['target']} and {roles['score']}. Leave out --wide."
        )
    scratch = [column for column in table.columns[1:] if column and options.is_scratch(column)]
    if scratch:
        raise DataError(
            f"{table.path} has the column {scratch[0]}; expected one row a source and one column a target. If its rows "
            "are targets, exchange rows and columns."
        )
    means = [column for column in table.columns[1:] if column.lower().strip(" .") in _MEANS]
    if means:
        raise DataError(
            f"{table.path} has the column {means[0]}, which would count as a target. Leave it out, or give it the name "
            "of a task."
        )


def _column(table: TableFile, role: str) -> str | None:
    """Returns the column of a role. Among several scores, it is `score` or `mean`; otherwise the user must decide."""
    there = [name for name in _NAMES[role] if name in table.names]
    if role in ("source", "target") and len(there) > 1:
        raise DataError(
            f"{table.path} has the columns {', '.join(there)}, each of which may be the {role}. Keep one."
        )
    if role == "score" and len(there) > 1 and not {"score", "mean"} & set(there):
        raise DataError(
            f"{table.path} has the columns {', '.join(there)}, each of which may be the score. Call one of them score."
        )
    return there[0] if there else None


def _headings(table: TableFile) -> str:
    return ", ".join(table.columns) or "(none)"


def _score(row: TableRow, source: str | None, options: ReadOptions) -> Score:
    cells = row.cells
    if not cells["target"]:
        raise DataError(f"{row.where}: the target is empty. Every row needs one.")
    score, seed, n = (_number(row, column) for column in ("score", "seed", "n"))
    if n is not None and (n < 1 or n != int(n)):
        raise DataError(f"{row.where}: n is {cells['n']}; expected how many seeds the score is a mean of.")
    if score is None or (seed is not None and seed != int(seed)):
        what = "the score is empty" if score is None else f"seed is {cells['seed']}, not a whole number"
        raise DataError(f"{row.where}: {what}. Leave the row out, or fill it in.")
    if not -100 <= score * options.scale <= 100:
        raise DataError(
            f"{row.where}: the score is {score * options.scale:g}; expected a percentage, at most 100. Check --scale, "
            "which is 100 for fractions and 1 for percentages."
        )
    averaged = None if seed is not None else int(n) if n else options.seeds_averaged
    return Score(
        cells["target"], source, None if seed is None else int(seed), score * options.scale,
        _deviation(row, options.scale, averaged), averaged,
    )  # fmt: skip


def _deviation(row: TableRow, scale: float, averaged: int | None) -> float | None:
    """Returns the standard deviation over seeds, as given or from the standard error of the mean."""
    std, stderr = _number(row, "std"), _number(row, "stderr")
    if std is not None and stderr is not None:
        raise DataError(
            f"{row.where}: there is a standard deviation ({std:g}) and a standard error ({stderr:g}); expected one of "
            "them. Leave out the column that is not needed: a deviation is taken as it is."
        )
    if std is None and stderr is not None:
        if averaged is None:
            raise DataError(
                f"{row.where}: a standard error becomes a deviation only if the number of seeds is known. Add a "
                "column n, or use --seeds-averaged."
            )
        std = stderr * math.sqrt(averaged)
    if std is not None and not 0 <= std * scale <= _LARGEST_STD:
        raise DataError(
            f"{row.where}: the standard deviation is {std * scale:g}; expected 0 to {_LARGEST_STD:.0f}, the largest "
            "that scores from 0 to 100 can have. Correct it."
        )
    return None if std is None else std * scale


def _number(row: TableRow, column: str) -> float | None:
    cell = row.cells.get(column, "")
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{row.where}: {column} is {cell!r}, not a number. Leave the row out, or correct it.")
    return number


def _twice(
    cell: tuple[str | None, str, int | None], first: str, second: str, name: str, other: str
) -> DataError:
    source, target, seed = cell
    start = "from scratch" if source is None else f"from {source}"
    which = "" if seed is None else f", seed {seed}"
    message = f"{target} {start}{which} has more than one score: {first}, and {second}. Keep one."
    if name != other:
        message += f" If {name!r} and {other!r} are not the same, say which is from scratch: --scratch-name {name!r}."
    return DataError(message)


def _check_scale(
    path: Path, scores: Sequence[Score], lines: dict[tuple[str | None, str, int | None], str]
) -> tuple[str, ...]:
    """Refuses fractions among percentages; returns a note on single scores that may be fractions.

    Raises:
        DataError: All scores are fractions, or all of one target are while others' are percentages.
    """
    largest = _largest_by_target(scores)
    if scores and max(largest.values()) <= 1:
        raise DataError(
            f"All scores of {path} are between -1 and 1; expected percentages. Use --scale 100 if they are fractions."
        )
    fractions = [
        target
        for target, most in largest.items()
        if most <= 1 and sum(0 < abs(one.score) < 1 for one in scores if one.target == target) > 2
    ]
    if fractions:
        raise DataError(
            f"{path}: all scores of {', '.join(fractions[:3])} are between -1 and 1, while those of other targets are "
            "percentages. Bring all to one scale, or use --accept-scale if they are right."
        )
    odd = [one for one in scores if 0 < abs(one.score) < 1 and largest[one.target] > 10]
    bases = [one for one in scores if one.source is None]
    if bases and len(bases) < len(scores) and all(one in odd for one in bases):
        raise DataError(
            f"{path}: all scores from scratch are between -1 and 1, and the others are percentages. Bring all to one "
            "scale, or use --accept-scale if they are right."
        )
    return tuple(
        f"{lines[one.source, one.target, one.seed]}: the score is {one.score:g}, while {one.target} reaches "
        f"{largest[one.target]:g}. Is it a fraction?"
        for one in odd[:3]
    ) + ((f"{path}: {len(odd) - 3} more such scores.",) if len(odd) > 3 else ())


def _largest_by_target(scores: Iterable[Score]) -> dict[str, float]:
    largest: dict[str, float] = {}
    for one in scores:
        if one.source is None or is_pair(one.source, one.target):
            largest[one.target] = max(largest.get(one.target, 0.0), abs(one.score))
    return largest
