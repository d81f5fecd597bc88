"""Writes a stream of rows to a store: every row is read, made into an example and written, once for each file."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spoton.errors import DataError
from spoton.files import writing
from spoton.tasks.columns import Columns
from spoton.tasks.metrics import number
from spoton.tasks.stored.store import CODES, FACTS, NUMBERS, RowWriter
from spoton.tasks.stored.stream import RowStream
from spoton.tasks.tabular import dropped_rows, examples_of
from spoton.tasks.targets import TargetFacts, is_short
from spoton.tasks.template import compile_template

MOST_WORDS = 100_000
"""Most distinct targets kept in memory; more are open text, unless the user says that they are labels."""


@dataclass
class _Targets:
    """Facts collected about targets as they pass.

    Attributes:
        closed: Whether the user says that they are labels, whatever their number.
        codes: Code of each row's target, in the order of `words`.
        words: Distinct targets and their codes, until there are too many.
        hashes: Hash of each row's target, to count the distinct ones once there are too many.
        numbers: Whether all are numbers so far.
        short: Whether all have few words so far.
    """

    closed: bool
    codes: array[int] = field(default_factory=lambda: array("i"))
    words: dict[str, int] | None = field(default_factory=dict)
    hashes: array[int] = field(default_factory=lambda: array("q"))
    numbers: bool = True
    short: bool = True

    def add(self, target: str) -> None:
        """Notes the target of the next row."""
        if not self.closed:
            self.hashes.append(hash(target))
        new = self.words is None
        if self.words is not None:
            before = len(self.words)
            self.codes.append(self.words.setdefault(target, before))
            new = len(self.words) > before
            if not self.closed and len(self.words) > MOST_WORDS:
                self.words, self.codes = None, array("i")
        if new:
            self.numbers = self.numbers and number(target) is not None
            self.short = self.short and is_short(target)

    def facts(self, rows: int) -> dict[str, Any]:
        """Returns the facts to keep."""
        distinct = len(self.words) if self.words is not None else len(np.unique(np.asarray(self.hashes)))
        return {
            "rows": rows,
            "distinct": distinct,
            "numbers": self.numbers,
            "short": self.short,
            "words": None if self.words is None else list(self.words),
        }


def write_store(folder: Path, streams: Mapping[str, RowStream], wanted: Mapping[str, Any]) -> None:
    """Writes the store of all splits, one after another.

    Args:
        folder: An empty folder.
        streams: The rows of `train` and, where given, `validation` and `test`.
        wanted: `input`, `target` and `template` as the user gives them; `closed`: whether targets are labels,
            whatever their number; `stamps`: the files' stamps.

    Raises:
        DataError: As in `task_from_rows`.
    """
    columns = Columns.choose(
        streams["train"], input=wanted["input"], target=wanted["target"], template=wanted["template"]
    )
    compiled, notes = compile_template(columns.template), list(columns.notes)
    targets, writer, kept = _Targets(bool(wanted["closed"])), RowWriter(folder), dict[str, int]()
    numbers = array("q")
    for split, stream in streams.items():
        kept[split], rows = 0, 0
        for example in examples_of(stream, columns, compiled, split):
            rows += 1
            if example is not None:
                writer.add(example)
                targets.add(example.target)
                numbers.append(example.row)
                kept[split] += 1
        if not rows:
            raise DataError(f"The file of the {split} rows is empty: it has no rows. Give one with examples.")
        notes += dropped_rows(split, rows, kept[split])
    writer.close()
    with writing(folder):
        np.save(folder / NUMBERS, np.asarray(numbers, dtype=np.int64))
        if targets.words is not None:
            np.save(folder / CODES, np.asarray(targets.codes, dtype=np.int32))
        facts = targets.facts(sum(kept.values())) | {
            "splits": kept, "notes": notes, "columns": asdict(columns), "stamps": wanted["stamps"],
        }  # fmt: skip
        (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def target_facts(facts: Mapping[str, Any]) -> TargetFacts:
    """Returns a store's facts about its targets, in the form that `labels_of` takes."""
    words = facts["words"]
    return TargetFacts(
        facts["rows"],
        facts["distinct"],
        facts["numbers"],
        facts["short"],
        None if words is None else sorted(words),
    )


def word_counts(facts: Mapping[str, Any], codes: Any) -> Counter[str]:
    """Returns how often each target occurs in all splits, where there are few distinct ones."""
    words = facts["words"] or []
    counts = np.bincount(codes, minlength=len(words))
    return Counter({word: int(count) for word, count in zip(words, counts, strict=True)})
