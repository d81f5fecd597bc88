"""The report's sections on choosing sources: retrieval, choices made on other targets, successive halving."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.source_choices import MethodResult
from spoton.study.report.parts import (
    UNKNOWN,
    Content,
    Picture,
    Section,
    Table,
    TableCell,
    count,
    number,
    percent,
    spread,
)
from spoton.study.report.similarity_tables import FINAL

_SOME_K = (1, 2, 3, 5, 10)
_EVERY_K = ("best-of-top-k", "random")


def retrieval(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    """Returns Table 3 of the paper, and how well each similarity ranks sources."""
    blocks: list[Content] = []
    ranked, everything = analysis.ranked_targets(), analysis.results.targets
    if analysis.correlations:
        if not analysis.results.has_keys:
            blocks.append(FINAL)
        if len(ranked) < len(everything):
            absent = [target for target in everything if target not in ranked]
            blocks.append(
                f"Retrieval figures are over {len(ranked)} of {len(everything)} targets. {', '.join(absent)} "
                f"{'has' if len(absent) == 1 else 'have'} no key, no source or no score from scratch."
            )
    if "retrieval" in figures:
        caption = "Change of the average score over tuning from scratch."
        if any(math.isfinite(row.absolute.std) for row in analysis.rows if row.k):
            caption += " Bands are standard deviations over seeds."
        blocks.append(Picture("retrieval", caption))
    shown = [row for row in analysis.rows if row.method not in _EVERY_K or row.k in _SOME_K]
    blocks.append(
        "As Table 3 of the paper: changes against tuning from scratch of the same seed, averaged "
        "over targets. Only the "
        "oracle chooses by the reported scores. Random: the expected result of choosing by validation among k random "
        "sources. Ties in validation scores are broken by validation loss if it is known, and averaged over otherwise."
    )
    blocks.append(_methods("methods", shown))
    if len(shown) < len(analysis.rows):
        blocks.append(_methods("methods_every_k", analysis.rows, "The same for every k"))
    sizes = [k for k in _SOME_K if k in analysis.rankings[0].regret]
    headings = ("similarity", "nDCG", *(f"regret@{k} %" for k in sizes))
    orders = [
        (
            one.metric or "random order", spread(one.ndcg, 3, seeds=False),
            *(spread(one.regret[k], 2, seeds=False) for k in sizes),
        )
        for one in analysis.rankings
    ]  # fmt: skip
    blocks.append(Table("rankings", headings, orders))
    return [Section("Retrieval" if analysis.correlations else "Choosing sources", blocks)]


def _methods(name: str, rows: Sequence[MethodResult], folded: str | None = None) -> Table:
    columns = (
        "method",
        "similarity",
        "k",
        "change",
        "error reduction %",
        "average",
        "kept",
        "targets",
        "noise",
    )
    cells: list[list[TableCell]] = [
        [
            row.method, row.metric or UNKNOWN, count(row.k), spread(row.absolute, sign=True),
            spread(row.relative, sign=True), spread(row.average), percent(row.kept), count(row.targets), _noise(row),
        ]
        for row in rows
    ]  # fmt: skip
    return Table(name, columns, cells, folded)


def _noise(row: MethodResult) -> str:
    if row.method == "baseline" or row.within_noise is None:
        return UNKNOWN
    return "within noise" if row.within_noise else "beyond noise"


def leaving_one_out(analysis: Analysis) -> list[Section]:
    """Returns what each target gets from a choice made on the other targets."""
    if not analysis.held_out:
        return []
    columns = ("choice", "chosen for", "change", "picked on the answer", "change of that", "difference")
    rows: list[list[TableCell]] = [
        [
            one.question,
            "; ".join(f"{_short(name)} ({n} target{'s' if n > 1 else ''})" for name, n in one.chosen.items()),
            spread(one.honest.absolute, sign=True), _short(one.picked_option), spread(one.picked.absolute, sign=True),
            number(one.picked.absolute.mean - one.honest.absolute.mean, 2, sign=True),
        ]
        for one in analysis.held_out
    ]  # fmt: skip
    text = (
        "Each target gets what the other targets choose by validation. The difference to the one "
        "choice that is best on "
        "all targets by reported scores is how much picking on the answer would have flattered."
    )
    some = [
        row
        for row in rows
        if not str(row[0]).startswith("similarity for k") or int(str(row[0]).split()[-1]) in _SOME_K
    ]
    blocks: list[Content] = [text, Table("leaving_one_target_out", columns, some)]
    if len(some) < len(rows):
        blocks.append(Table("leaving_one_target_out_every_k", columns, rows, "The same for every k"))
    return [Section("Leaving one target out", blocks)]


def halving(analysis: Analysis) -> list[Section]:
    """Returns what successive halving did, or would have done."""
    blocks: list[Content] = []
    if dropped := analysis.results.dropped:
        rows = [
            (source, target, count(seed), count(steps))
            for (source, target, seed), steps in sorted(dropped.items())
        ]
        blocks.append("Cells that were dropped keep the best prompt they had by then, and its scores.")
        blocks.append(
            Table(
                "dropped",
                ("source", "target", "seed", "dropped after steps"),
                rows,
                f"{len(rows)} dropped cells",
            )
        )
    if analysis.replays:
        blocks.append(
            "Replayed on the recorded evaluations of this study, which ran without halving: at each "
            "rung the better half by "
            "validation goes on. Change: of the reported score of the source that validation chooses for each target "
            "and seed, against choosing among all sources tuned to the end."
        )
        headings = ("rungs (steps)", "cells dropped", "steps saved", "same choice", "change (points)")
        blocks.append(Table("halving", headings, [
            (
                ", ".join(map(str, one.halving.rungs)), f"{one.dropped} of {one.cells}", percent(one.saved),
                f"{one.same} of {one.groups}", spread(one.change, 2, seeds=False),
            )
            for one in analysis.replays
        ]))  # fmt: skip
    return [Section("Successive halving", blocks)] if blocks else []


def _short(option: str) -> str:
    """Returns the name of an option without the method, if it is best-of-top-k."""
    return option.removeprefix("best-of-top-k, ")
