"""The report's sections on similarity: how similar tasks are, and whether similar ones transfer better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.similarities import TaskSimilarities
from spoton.study.report.parts import (
    Content,
    Picture,
    Section,
    Table,
    TableCell,
    count,
    interval,
    number,
    probability,
)

FINAL = "These are similarities of final prompts, not of keys: no early checkpoints are known."


def similarities(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    """Returns a map for each similarity, with tasks in the same order."""
    if not analysis.similarities:
        return []
    first = next(iter(analysis.similarities))
    blocks: list[Content] = [] if analysis.results.has_keys else [FINAL]
    for metric, found in analysis.similarities.items():
        if f"similarity-{metric}" in figures:
            text = f"Similarity of tasks by {metric}, mean over all pairs of seeds."
            if found.tree is not None:
                text += (
                    f" Tasks stand in the order of their clusters by {first} (average linkage), in every map."
                )
            text += " Colours span what different tasks reach; a task with itself may lie beyond."
            blocks.append(Picture(f"similarity-{metric}", f"{text} {_what_to_see(analysis, found)}".strip()))
        tasks = [found.tasks[place] for place in found.order]
        rows: list[list[TableCell]] = [
            [a, *(number(float(found.values[i, j]), 3) for j in found.order)]
            for a, i in zip(tasks, found.order, strict=True)
        ]
        blocks.append(
            Table(f"similarity_{metric}", ("task", *tasks), rows, f"Similarity by {metric}, as numbers")
        )
    return [Section("Similarity of tasks", blocks)]


def _what_to_see(analysis: Analysis, found: TaskSimilarities) -> str:
    """Returns whether families form clusters, and whether keys remember their common start."""
    text = []
    families = [analysis.results.families.get(task) for task in found.tasks]
    alike = np.array([[a is not None and a == b for b in families] for a in families])
    known = np.array([family is not None for family in families])
    different = ~np.eye(len(families), dtype=bool) & known[:, None] & known[None] & np.isfinite(found.values)
    inside, outside = found.values[different & alike], found.values[different & ~alike]
    if inside.size and outside.size:
        more = inside.mean() > outside.mean()
        text.append(
            f"Look for bright blocks along the diagonal where the strip has one colour: tasks of one family are at "
            f"{number(float(inside.mean()), 3)} on average, of different families at "
            f"{number(float(outside.mean()), 3)}, so "
            f"families are {'more alike than the rest' if more else 'no more alike than the rest'}."
        )
    if found.remember_start is not None:
        word = "keys" if analysis.results.has_keys else "prompts"
        text.append(
            f"Do {word} remember their start? Different tasks of one seed, which start alike, are at "
            f"{number(found.same_seed, 3)}; of different seeds at {number(found.other_seed, 3)}: "
            + (f"yes, so compare {word} of one seed only." if found.remember_start else "no, or hardly.")
        )
    return " ".join(text)


def correlations(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    """Returns how similarity and error reduction correlate."""
    if not analysis.correlations:
        return []
    blocks: list[Content] = [] if analysis.results.has_keys else [FINAL]
    seeded = any(analysis.reported.is_seeded)
    text = f"Each point is a transfer from one source{' with one seed' if seeded else ', the mean over its seeds'}."
    if sum(analysis.reported.is_seeded) > 1:
        text += (
            " p-values take points as independent, which those of one source with several seeds are "
            "not, so these p-values "
            "are too small; the interval is a 95 % bootstrap over source tasks."
        )
    else:
        text += " The interval is a 95 % bootstrap over source tasks."
    blocks.append(text)
    caption = (
        "Similarity and relative error reduction, a row for each target and a column for each similarity. If similar "
        "tasks transfer better, points rise to the right."
    )
    if analysis.results.families:
        caption += " Colours are families of sources."
    if False in analysis.results.learned_sources.values():
        caption += " Hollow points are sources that had not learned their own task."
    parts = [name for name in figures if name == "scatter" or name.startswith("scatter-")]
    blocks += [
        Picture(name, caption if i == 0 else "Similarity and error reduction, continued.")
        for i, name in enumerate(parts)
    ]
    columns = (
        "similarity",
        "target",
        "points",
        "sources",
        "Pearson r",
        "p",
        "bootstrap",
        "Spearman",
        "p (rank)",
    )
    rows = [
        (
            metric, one.target, count(one.n), count(one.tasks), number(one.pearson, 3), probability(one.pearson_p),
            interval(*one.interval, digits=2), number(one.spearman, 3), probability(one.spearman_p),
        )
        for metric, found in analysis.correlations.items()
        for one in found
        if one.n or math.isfinite(one.pearson)
    ]  # fmt: skip
    blocks.append(Table("correlation", columns, rows))
    return [Section("Similarity and transfer", blocks)]
