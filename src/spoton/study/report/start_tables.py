"""The report's section on controls for transfer: unrelated sources, and noise."""

from __future__ import annotations

import math

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.start_groups import DIFFERENCE, Effect
from spoton.study.report.parts import Content, Section, Table, TableCell, count, interval, number, percent


def starts(analysis: Analysis) -> list[Section]:
    """Returns score and speed by a run's kind of start; nothing where families are unknown."""
    groups = analysis.starts
    if not groups:
        return []
    told = (
        "Runs by what they started from, each against tuning from scratch on the same target with the same seed: "
        "sources of the target's family, sources of other families (only those that had learned their own task, as far "
        "as that is known), and noise as large as a source's prompt, if the study has that control. Means are over "
        "targets; intervals are 95 % bootstraps that draw targets, and seeds within each."
    )
    blocks: list[Content] = [told]
    columns = ("start", "gain", "95 %", "targets", "pairs of target and seed")
    level: list[list[TableCell]] = [
        [
            one.name,
            number(one.gain.mean, sign=True),
            _bounds(one.gain),
            count(one.gain.targets),
            count(one.gain.runs),
        ]
        for one in groups
    ]
    blocks.append(Table("starts_level", columns, level))
    fast = [one for one in groups if one.name != DIFFERENCE and math.isfinite(one.area.mean)]
    if fast:
        blocks.append(
            "Speed, on the validation split: the mean height of the learning curve above that from scratch; the share "
            "of runs that reach the highest validation score of tuning from scratch; and when they do, as a share of "
            "the steps that it takes to it."
        )
        rows: list[list[TableCell]] = [
            [
                one.name, number(one.area.mean, sign=True), _bounds(one.area), percent(one.arrived.mean),
                percent(one.steps.mean), count(one.area.targets), count(one.area.runs),
            ]
            for one in fast
        ]  # fmt: skip
        headings = (
            "start",
            "area (points)",
            "95 %",
            "runs that reach it",
            "share of the steps",
            "targets",
            "pairs of target and seed",
        )
        blocks.append(Table("starts_speed", headings, rows))
    return [Section("Is it the relation?", blocks)]


def _bounds(effect: Effect) -> TableCell:
    return interval(effect.interval.low, effect.interval.high)
