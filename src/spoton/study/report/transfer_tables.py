"""The report's sections on transfer: error reductions, gains by source and by target, all pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spoton.study.analysis.analyse import Analysis, chance, saturated
from spoton.study.analysis.gain import MIN_TESTED_SEEDS
from spoton.study.report.figures.heatmaps import CLIP
from spoton.study.report.findings import deviations
from spoton.study.report.parts import (
    DROPPED,
    Content,
    Picture,
    Section,
    Table,
    TableCell,
    count,
    interval,
    number,
    percent,
    probability,
    spread,
    yes_or_no,
)
from spoton.study.results.score_arrays import Mean

_LEAST = 10
"""Least error reduction of a pair in the list, as in Table 7 of SPoT."""


def transfer(analysis: Analysis) -> Section:
    """Returns the map of error reductions, and their means by source."""
    targets = analysis.results.targets
    caption = (
        "Relative error reduction in percent, sources by their mean over targets, the best first. Blue cells gain, red "
        f"ones lose, white is no change; colours end at ±{CLIP} %, as in the paper."
    )
    if any(one.beyond_noise is not None for one in analysis.changes):
        caption += " * marks gains or losses beyond the noise of seeds."
    if analysis.results.dropped:
        caption += f" {DROPPED} marks pairs of which a seed was dropped by successive halving."
    blocks: list[Content] = [Picture("transfer", caption)]
    rate = chance(analysis)
    if math.isfinite(rate):
        blocks.append(
            f"With this number of seeds, about {percent(rate)} of pairs would pass as beyond noise if "
            "no source made any "
            "difference: single stars are weak evidence. Adjusted p-values (Benjamini and Hochberg) "
            "are in the table of "
            "all pairs."
        )
    if full := saturated(analysis):
        blocks.append(
            f"No error is left from scratch on {', '.join(full)}, so no reduction of it is defined."
        )
    learned = analysis.results.learned_sources
    means = [
        (source, yes_or_no(learned.get(source)), number(mean, sign=True), number(median, sign=True), count(n))
        for source, mean, median, n in analysis.by_mean_reduction()
    ]
    columns = ("source", "learned its own task", "mean error reduction %", "median", "targets")
    blocks.append(Table("sources", columns, means))
    blocks.append(_largest(analysis))
    scores: list[list[TableCell]] = [
        ["from scratch", *(spread(analysis.reported.cell(None, t)) for t in targets)]
    ]
    scores += [
        [source, *(spread(analysis.reported.cell(source, target)) for target in targets)]
        for source in analysis.results.sources
    ]
    blocks.append(Table("scores", ("source", *targets), scores, f"Scores: {deviations(analysis)}"))
    return Section("Transfer", blocks)


def _largest(analysis: Analysis) -> Table:
    rows = [
        (
            one.source,
            one.target,
            number(one.error_reduction, sign=True),
            number(one.gain, sign=True),
            one.outcome,
        )
        for one in analysis.above(_LEAST)
    ]
    text = (
        f"{len(rows)} of {len(analysis.changes)} pairs reduce the error by more than {_LEAST} %, as Table 7"
    )
    return Table(
        "error_reduction_above_10", ("source", "target", "error reduction %", "gain", "outcome"), rows, text
    )


def gains(analysis: Analysis, figures: Sequence[str]) -> Section:
    """Returns gains with their intervals, by target and pair by pair."""
    kinds = {one.interval.method for one in analysis.changes if one.interval.is_known}
    words = {"paired t": "paired over seeds (Student's t)", "Welch": "of two independent means (Welch)"}
    caption = (
        "Gain over tuning from scratch, in points, a panel for each target; the same sources in each row."
    )
    if kinds:
        tests = " or ".join(words[kind] for kind in sorted(kinds))
        caption += f" Lines are 95 % intervals, {tests}, cut off at an arrow."
        if any(one.is_tested for one in analysis.changes):
            caption += " They are green or red where zero is outside."
        if any(one.interval.is_known and not one.is_tested for one in analysis.changes):
            caption += (
                f" Those of fewer than {MIN_TESTED_SEEDS} seeds stay grey: gains of two seeds may be equal by chance, "
                "which makes their interval narrow, and otherwise it is very wide."
            )
        if any(not one.interval.is_known for one in analysis.changes):
            caption += " Hollow points have no interval: a seed is missing, or all seeds gain the same."
    else:
        caption += (
            " There are no intervals: they take two seeds or more on both sides, or standard deviations."
        )
    parts = [name for name in figures if name == "gains" or name.startswith("gains-")]
    blocks: list[Content] = [
        Picture(name, caption if i == 0 else "Gains, continued.") for i, name in enumerate(parts)
    ]
    return Section("Gains by target", [*blocks, _by_target(analysis), _pairs(analysis)])


def _by_target(analysis: Analysis) -> Table:
    rows: list[list[TableCell]] = []
    for target in analysis.results.targets:
        found = [one for one in analysis.changes if one.target == target]
        if found:
            values = np.array([one.gain for one in found])
            best = max(found, key=lambda one: one.gain)
            rows.append([
                target, spread(found[0].scratch), count(len(found)), count(int((values > 0).sum())),
                number(float(values.mean()), sign=True), number(float(np.median(values)), sign=True),
                best.source, number(best.gain, sign=True), interval(best.interval.low, best.interval.high),
            ])  # fmt: skip
    columns = (
        "target", "from scratch", "sources", "ahead", "mean gain", "median gain", "best source", "its gain",
        "95 % of its gain",
    )  # fmt: skip
    return Table("gains_by_target", columns, rows)


def _pairs(analysis: Analysis) -> Table:
    seeded = [seed for seed in analysis.reported.seeds if seed is not None]
    several = len(seeded) > 1
    layers = [f"seed {seed}" for seed in seeded] if several else []
    columns = (
        "source", "target", *layers, "score" if len(seeded) == 1 else "mean", "gain", "95 % of the gain",
        "error reduction %", "outcome", "p", "p adjusted",
    )  # fmt: skip
    rows: list[list[TableCell]] = []
    for one, p in zip(analysis.changes, analysis.p_adjusted, strict=True):
        scores = dict(
            zip(
                analysis.reported.seeds,
                analysis.reported.by_seed(one.source, one.target).tolist(),
                strict=True,
            )
        )
        dropped = {seed for seed in seeded if (one.source, one.target, seed) in analysis.results.dropped}
        each = [number(scores[seed]).marked(DROPPED if seed in dropped else "") for seed in seeded]
        score = number(one.score.mean) if len(seeded) == 1 else spread(one.score)
        rows.append([
            one.source, one.target, *(each if several else []),
            score.marked(DROPPED) if dropped and not several else score,
            number(one.gain, sign=True), interval(one.interval.low, one.interval.high),
            spread(Mean(one.error_reduction, one.error_reduction_std, 0), sign=True), one.outcome,
            probability(one.p_value), probability(p),
        ])  # fmt: skip
    marked = f" ({DROPPED} dropped by halving)" if analysis.results.dropped else ""
    return Table(
        "pairs", columns, rows, f"All {len(rows)} pairs{' with their seeds' if several else ''}{marked}"
    )
