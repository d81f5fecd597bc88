"""What the report says, section by section, as text that every format shows alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spoton.study.analysis.analyse import Analysis, chance, saturated
from spoton.study.analysis.document import advice, candidates
from spoton.study.analysis.verdicts import verdicts
from spoton.study.report.baselines import baseline_sections
from spoton.study.report.parts import (
    DROPPED,
    UNKNOWN,
    Block,
    Figure,
    Section,
    Table,
    number,
    percent,
    probability,
    spread,
)
from spoton.study.results.scores import Mean
from spoton.tuning.record import versions

_MANY = 12
_SOME_K = (1, 2, 3, 5, 10)
_EVERY_K = ("best-of-top-k", "random")
_MISSING_SHOWN = 40


def title(analysis: Analysis) -> str:
    """The report's heading."""
    name = analysis.results.metadata.get("name")
    return f"Transfer study: {name}" if name else "Transfer study"


def sections(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    """The whole report.

    Args:
        analysis: What to report.
        figures: Names of the figures there are.
    """
    parts = [
        _summary(analysis), _candidates(analysis), _transfer(analysis), *_similarity(analysis, figures),
        *_correlation(analysis, figures), _retrieval(analysis, figures), *_held_out(analysis), *_halving(analysis),
        *baseline_sections(analysis), *_targets(analysis), _definitions(analysis), _provenance(analysis),
    ]  # fmt: skip
    return parts


def _summary(analysis: Analysis) -> Section:
    results = analysis.results
    seeds = [seed for seed in analysis.reported.seeds if seed is not None]
    told = f"{len(results.sources)} source tasks, {len(results.targets)} target tasks, "
    told += f"seeds {', '.join(map(str, seeds))}." if seeds else "scores that are means over seeds."
    told += (
        " Sources, k and checkpoints are chosen by validation scores; test scores are reported."
        if results.reported_split == "test"
        else " There are no test scores: validation scores are both chosen by and reported, so whatever "
        "is chosen looks "
        "better than it is."
    )
    missing = analysis.reported.missing({(source, target) for source, target, _ in results.left_out})
    told += f" {len(missing)} cells are missing; all numbers are of what is there." if missing else ""
    if results.dropped:
        told += (
            f" {len(results.dropped)} transfer cells were dropped by successive halving and keep the best score they "
            "had by then, which more steps might have raised: what is said of weak sources is a lower bound."
        )
    rows = [(one.question, one.answer, one.sentence) for one in verdicts(analysis)]
    return Section("Findings", [told, Table(("question", "answer", "numbers"), rows)])


def _candidates(analysis: Analysis) -> Section:
    columns = (
        "task",
        "family",
        "metric",
        "used as target",
        "majority",
        "zero-shot",
        "from scratch",
        "learned",
    )
    rows = [
        (
            row["task"], row["family"] or UNKNOWN, row["metric"] or UNKNOWN, "yes" if row["target"] else UNKNOWN,
            number(row["majority"]), number(row["zero_shot"]), spread(_mean(row["from_scratch"])),
            {True: "yes", False: "no", None: UNKNOWN}[row["learned"]],
        )
        for row in candidates(analysis)
    ]  # fmt: skip
    told = (
        "What each task does without transfer: always the most frequent answer, the bare model, and "
        "a prompt tuned from "
        "scratch (mean ± standard deviation, number of seeds). It is learned if tuning beats the "
        "other two by more than "
        "its standard deviation."
    )
    return Section("Targets without transfer", [told, Table(columns, rows, frozenset(columns[4:7]))])


def _transfer(analysis: Analysis) -> Section:
    targets = analysis.results.targets
    caption = (
        "Relative error reduction in percent, sources by their mean. * marks gains or losses beyond "
        "the noise of seeds. "
        "White is no change; colours end at ±25 % as in the paper."
    )
    if analysis.results.dropped:
        caption += f" {DROPPED} marks pairs of which a seed was dropped by successive halving."
    blocks: list[Block] = [Figure("transfer", caption)]
    rate = chance(analysis)
    if math.isfinite(rate):
        blocks.append(
            f"With this number of seeds, about {percent(rate)} of pairs would pass as beyond noise if "
            f"no source made any "
            "difference: single stars are weak evidence. Adjusted p-values (Benjamini and Hochberg) "
            "are in the table of "
            "all pairs."
        )
    if full := saturated(analysis):
        blocks.append(
            f"No error is left from scratch on {', '.join(full)}, so no reduction of it is defined."
        )
    means = [(source, number(mean, sign=True), str(n)) for source, mean, n in analysis.by_mean_reduction()]
    columns = ("source", "mean error reduction %", "targets")
    blocks.append(Table(columns, means, frozenset(columns[1:])))
    scores = [
        ("from scratch", *(spread(analysis.reported.cell(None, target)) for target in targets)),
        *(
            (source, *(spread(analysis.reported.cell(source, target)) for target in targets))
            for source in analysis.results.sources
        ),
    ]
    blocks.append(
        Table(("source", *targets), scores, frozenset(targets), "Scores: mean ± standard deviation (seeds)")
    )
    blocks.append(_pairs(analysis))
    return Section("Transfer", blocks)


def _pairs(analysis: Analysis) -> Table:
    seeds = analysis.reported.seeds
    layers = [f"seed {seed}" for seed in seeds if seed is not None]
    columns = ("source", "target", *layers, "mean", "gain", "error reduction %", "outcome", "p", "p adjusted")
    rows = []
    for one, p in zip(analysis.changes, analysis.p_adjusted, strict=True):
        values = analysis.reported.transfer[
            analysis.results.sources.index(one.source), analysis.results.targets.index(one.target)
        ]
        each = [
            number(value) + (DROPPED if (one.source, one.target, seed) in analysis.results.dropped else "")
            for value, seed in zip(values.tolist(), seeds, strict=True)
            if seed is not None
        ]
        reduction = spread(Mean(one.error_reduction, one.error_reduction_std, 0), sign=True)
        rows.append((
            one.source, one.target, *each, spread(one.score), number(one.gain, sign=True), reduction, one.outcome,
            probability(one.p_value), probability(p),
        ))  # fmt: skip
    numbers = frozenset(columns) - {"source", "target", "outcome"}
    marked = f" ({DROPPED} dropped by halving)" if analysis.results.dropped else ""
    return Table(columns, rows, numbers, f"All pairs with their seeds{marked}")


def _similarity(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    blocks: list[Block] = []
    for metric, found in analysis.similarities.items():
        name = f"similarity-{metric}"
        if name in figures:
            told = (
                f"Similarity of tasks by {metric}, mean over pairs of seeds, ordered by average linkage. Colours span "
                "what different tasks reach."
            )
            if math.isfinite(found.other_seed):
                told += (
                    f" Different tasks of one seed: {number(found.same_seed, 3)}; of different seeds: "
                    f"{number(found.other_seed, 3)}."
                )
            blocks.append(Figure(name, told))
        tasks = [found.tasks[place] for place in found.order]
        rows = [
            (a, *(number(float(found.values[i, j]), 3) for j in found.order))
            for a, i in zip(tasks, found.order, strict=True)
        ]
        blocks.append(Table(("task", *tasks), rows, frozenset(tasks), f"Similarity by {metric}, as numbers"))
    return [Section("Similarity of tasks", blocks)] if blocks else []


def _correlation(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    if not analysis.correlations:
        return []
    blocks: list[Block] = [
        "Each point is a source prompt. p-values take prompts as independent, which those of one "
        "task from several seeds "
        "are not, so they are too small; the interval is a 95 % bootstrap over source tasks."
    ]
    if "scatter" in figures:
        blocks.append(
            Figure(
                "scatter", f"Similarity ({analysis.metric}) and relative error reduction, for each target."
            )
        )
    columns = (
        "similarity",
        "target",
        "prompts",
        "tasks",
        "Pearson r",
        "p",
        "bootstrap",
        "Spearman",
        "p (rank)",
    )
    rows = [
        (
            metric, one.target, str(one.n), str(one.tasks), number(one.pearson, 3), probability(one.pearson_p),
            f"{number(one.interval[0], 2)} to {number(one.interval[1], 2)}", number(one.spearman, 3),
            probability(one.spearman_p),
        )
        for metric, found in analysis.correlations.items()
        for one in found
    ]  # fmt: skip
    blocks.append(Table(columns, rows, frozenset(columns[2:])))
    return [Section("Similarity and transfer", blocks)]


def _retrieval(analysis: Analysis, figures: Sequence[str]) -> Section:
    blocks: list[Block] = []
    if "retrieval" in figures:
        caption = (
            "Change of the average score over tuning from scratch; bars are standard deviations over seeds."
        )
        blocks.append(Figure("retrieval", caption))
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
    rows = {
        row: (
            row.method, row.metric or UNKNOWN, str(row.k or UNKNOWN), spread(row.absolute, sign=True),
            spread(row.relative, sign=True), spread(row.average), percent(row.kept), str(row.targets),
            UNKNOWN if row.method == "baseline" else
            {True: "within noise", False: "beyond noise", None: "unknown"}[row.within_noise],
        )
        for row in analysis.rows
    }  # fmt: skip
    shown = [row for row in rows if row.method not in _EVERY_K or row.k in _SOME_K]
    blocks.append(
        "As Table 3 of the paper: changes against tuning from scratch of the same seed, averaged "
        "over targets; mean ± "
        "standard deviation (seeds). Only the oracle looks at the reported scores to choose. Random: "
        "the expected result "
        "of choosing by validation among k random sources."
    )
    blocks.append(Table(columns, [rows[row] for row in shown], frozenset(columns[2:8])))
    if len(shown) < len(rows):
        blocks.append(Table(columns, list(rows.values()), frozenset(columns[2:8]), "The same for every k"))
    sizes = [k for k in _SOME_K if k in analysis.rankings[0].regret]
    headings = ("similarity", "nDCG", *(f"regret@{k} %" for k in sizes))
    ranked = [
        (one.metric or "random order", spread_of(one.ndcg, 3), *(spread_of(one.regret[k], 2) for k in sizes))
        for one in analysis.rankings
    ]
    blocks.append(Table(headings, ranked, frozenset(headings[1:])))
    return Section("Retrieval", blocks)


def _held_out(analysis: Analysis) -> list[Section]:
    if not analysis.held_out:
        return []
    columns = ("choice", "chosen for", "change", "picked on the answer", "change of that", "difference")
    rows = [
        (
            one.question,
            "; ".join(f"{_short(name)} ({n} target{'s' if n > 1 else ''})" for name, n in one.chosen.items()),
            spread(one.honest.absolute, sign=True), _short(one.picked_option), spread(one.picked.absolute, sign=True),
            number(one.picked.absolute.mean - one.honest.absolute.mean, 2, sign=True),
        )
        for one in analysis.held_out
    ]  # fmt: skip
    told = (
        "Each target gets what the other targets choose by validation. The difference to the one "
        "choice that looks best on "
        "all targets, by reported scores, is what picking on the answer would have flattered."
    )
    numbers = frozenset({columns[2], *columns[4:]})
    some = [
        row for row in rows if not row[0].startswith("similarity for k") or int(row[0].split()[-1]) in _SOME_K
    ]
    blocks: list[Block] = [told, Table(columns, some, numbers)]
    if len(some) < len(rows):
        blocks.append(Table(columns, rows, numbers, "The same for every k"))
    return [Section("Leaving one target out", blocks)]


def _halving(analysis: Analysis) -> list[Section]:
    """What halving did, or what it would have done."""
    blocks: list[Block] = []
    if dropped := analysis.results.dropped:
        rows = [(*place[:2], str(place[2]), str(steps)) for place, steps in sorted(dropped.items())]
        columns = ("source", "target", "seed", "dropped after steps")
        blocks.append("Cells that were dropped keep the best prompt they had by then, and its scores.")
        blocks.append(Table(columns, rows, frozenset(columns[2:]), f"{len(rows)} dropped cells"))
    if analysis.replays:
        blocks.append(
            "Replayed on the recorded looks of this study, which ran without it: at each rung the better half by "
            "validation goes on. Change: of the reported score of the source that validation chooses for each target "
            "and seed, against choosing among all of them tuned to the end; mean ± standard deviation (seeds)."
        )
        headings = ("rungs (steps)", "cells dropped", "steps saved", "same choice", "change (points)")
        blocks.append(Table(headings, [
            (
                ", ".join(map(str, one.halving.rungs)), f"{one.dropped} of {one.cells}", percent(one.saved),
                f"{one.same} of {one.groups}", spread_of(one.change, 2),
            )
            for one in analysis.replays
        ], frozenset(headings[1:])))  # fmt: skip
    return [Section("Successive halving", blocks)] if blocks else []


def _short(option: str) -> str:
    """An option without the method that all of best-of-top-k share."""
    return option.removeprefix("best-of-top-k, ")


def _targets(analysis: Analysis) -> list[Section]:
    split = analysis.results.reported_split
    columns = (
        "source", "family", "similarity", "validation", *([split] if split == "test" else []),
        "gain", "error reduction %", "outcome",
    )  # fmt: skip
    parts = [
        Section("Which sources should I try?", ["For each target: its sources, best by validation first."])
    ]
    for target in analysis.results.targets:
        found = advice(analysis, target)
        rows = []
        for row in found["sources"]:
            near = number(row["similarity"], 3) + (
                f" (#{row['similarity_rank']})" if row["similarity_rank"] else ""
            )
            reported = [spread(_mean(row["reported"]))] if split == "test" else []
            rows.append((
                row["source"], row["family"] or UNKNOWN, near, spread(_mean(row["validation"])), *reported,
                number(row["gain"], sign=True), number(row["error_reduction"], sign=True), row["outcome"],
            ))  # fmt: skip
        scratch = f"From scratch: {spread(analysis.reported.cell(None, target))}. {found['advice']}"
        parts.append(Section(target, [scratch, Table(columns, rows, frozenset(columns[2:-1]))], level=3))
    return parts


def _definitions(analysis: Analysis) -> Section:
    return Section("Definitions", [
        "Relative error reduction: 100 · (score - base) / (100 - base), where base is the score from "
        "scratch; of means over "
        "seeds; its deviation is over seeds, each against its own run from scratch. Undefined where base is 100.",
        "Beyond noise: the difference of two means exceeds the standard deviation over seeds of "
        "either. Table of retrieval: "
        "the mean change exceeds its own standard deviation over seeds. p: Welch's t test, two-sided.",
        "Similarity: average_tokens, the cosine of the mean tokens; per_token_average, the mean "
        "cosine over all pairs of "
        "tokens; maximum_token, each token's highest cosine in the other prompt, averaged over both. "
        "Between tasks: the "
        "mean over all pairs of seeds; a task with itself over pairs of different seeds.",
        "Kept: share of the oracle's change. nDCG: relevance is the score above the worst source's, discounted by "
        "log2(rank + 1). Regret@k: percent of the best source's score that is lost by trying only "
        "the k most similar.",
    ])  # fmt: skip


def _provenance(analysis: Analysis) -> Section:
    facts = dict(_flat("", dict(analysis.results.metadata)))
    facts |= {f"analysed with {name}": version for name, version in versions().items()}
    blocks: list[Block] = [Table(("what", "value"), sorted(facts.items()))]
    if analysis.results.left_out:
        blocks.append(Table(("source", "target", "why it is left out"), analysis.results.left_out))
    missing = analysis.reported.missing({(source, target) for source, target, _ in analysis.results.left_out})
    if missing:
        shown = [
            (source or "from scratch", target, str(seed)) for source, target, seed in missing[:_MISSING_SHOWN]
        ]
        more = f", the first {_MISSING_SHOWN}" if len(missing) > _MISSING_SHOWN else ""
        blocks.append(
            Table(("source", "target", "seed"), shown, folded=f"{len(missing)} missing cells{more}")
        )
    return Section("Provenance", blocks)


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Nested facts as lines; a long list of numbers as its sum and median."""
    if isinstance(value, Mapping):
        numbers = [
            one for one in value.values() if isinstance(one, int | float) and not isinstance(one, bool)
        ]
        if len(value) > _MANY and len(numbers) == len(value):
            return [
                (prefix, f"{len(value)} values, sum {sum(numbers):,.1f}, median {np.median(numbers):,.1f}")
            ]
        return [
            line for name, inner in value.items() for line in _flat(f"{prefix}.{name}".lstrip("."), inner)
        ]
    if isinstance(value, list | tuple):
        return [(prefix, "; ".join(map(str, value)))] if value else []
    return (
        [(prefix, f"{value:g}" if isinstance(value, float) else str(value))]
        if value not in (None, "")
        else []
    )


def _mean(found: Mapping[str, Any]) -> Mean:
    """A mean from its plain values."""
    mean, std = (math.nan if found[name] is None else float(found[name]) for name in ("mean", "std"))
    return Mean(mean, std, found["n"] or 0)


def spread_of(mean: Mean, digits: int) -> str:
    """Mean ± standard deviation with more digits."""
    deviation = "" if math.isnan(mean.std) else f" ± {mean.std:.{digits}f}"
    return number(mean.mean, digits) + (deviation if math.isfinite(mean.mean) else "")
