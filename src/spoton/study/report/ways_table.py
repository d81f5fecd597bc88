"""The report's section on whom transfer helps: every way to choose a start, target by target."""

from __future__ import annotations

from collections.abc import Mapping

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.by_target import Ways, ways_by_target
from spoton.study.analysis.start_groups import Effect
from spoton.study.report.parts import (
    UNKNOWN,
    Content,
    Section,
    Table,
    TableCell,
    count,
    interval,
    number,
    percent,
    spread,
    yes_or_no,
)


def gains_by_choice(analysis: Analysis) -> Section:
    """Returns the gain of each way to choose a start by target, and its mean with an interval."""
    ways = ways_by_target(analysis)
    text = (
        "Gain over tuning from scratch in points, by target and by how the start is chosen. Related and unrelated "
        "sources and noise: the mean of their runs. The oracle takes the highest reported score; the oracle of other "
        "seeds takes the source that is best by the reported scores of the other seeds. Learned: tuning from scratch "
        "is ahead of the most frequent answer and of the bare model; where it is not, any other start can seem to help."
    )
    blocks: list[Content] = [text, _targets(ways)]
    blocks += [
        "The same on average, with 95 % intervals by a bootstrap that draws targets, and seeds within each.",
        _means(ways),
    ]
    return Section("Gains by choice", blocks, level=3)


def _targets(ways: Ways) -> Table:
    columns = (
        "target",
        "learned",
        "from scratch",
        *ways.gains,
        "related runs that reach it",
        "share of the steps",
    )
    rows: list[list[TableCell]] = [
        [
            target, yes_or_no(ways.learned[t]), spread(ways.scratch[t], seeds=False),
            *(number(gains[t].mean, sign=True) for gains in ways.gains.values()),
            percent(ways.arrived[t].mean), percent(ways.steps[t].mean),
        ]
        for t, target in enumerate(ways.targets)
    ]  # fmt: skip
    return Table("gains_by_choice", columns, rows)


def _means(ways: Ways) -> Table:
    columns = ("start", "gain", "95 %", "targets", "gain where learned", "its 95 %", "learned targets")
    rows: list[list[TableCell]] = [
        [name, *_effect(ways.overall, name), *_effect(ways.where_learned, name)] for name in ways.gains
    ]
    return Table("gains_by_choice_mean", columns, rows)


def _effect(effects: Mapping[str, Effect], name: str) -> list[TableCell]:
    if name not in effects:
        return [UNKNOWN] * 3
    one = effects[name]
    return [number(one.mean, sign=True), interval(one.interval.low, one.interval.high), count(one.targets)]
