"""Advice and caveats for the reader: sources to try for a target, and what the numbers do not cover."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from spoton.study.analysis.analyse import Analysis, learned
from spoton.study.results.import_results import FINAL_PROMPTS
from spoton.study.results.score_arrays import ScoreArrays, is_pair, known

_SHOWN = 6


def caveats(analysis: Analysis) -> list[str]:
    """Returns what is missing or odd, by name; it precedes every finding."""
    results, reported = analysis.results, analysis.reported
    lines = list(results.metadata.get("notes", ()))
    if results.metadata.get("final_prompts_as_keys") and FINAL_PROMPTS not in lines:
        lines.append(FINAL_PROMPTS)
    if pairs := reported.missing_pairs(results.untried):
        named = [f"{source} to {target}" for source, target in pairs]
        lines.append(f"{len(pairs)} of {len(list(reported.pairs()))} pairs have no score: {_some(named)}.")
    if keyless := results.tasks_without_key():
        lines.append(
            f"There are no keys of {_some(keyless)}. Targets without a key are left out of every retrieval figure, and "
            "sources without one are never retrieved."
        )
    if told := _classical(analysis):
        lines.append(told)
    no_scratch = [target for target in reported.targets if math.isnan(reported.cell(None, target).mean)]
    if no_scratch:
        lines.append(f"There is no score from scratch of {_some(no_scratch)}: no gain is known there.")
    if reported.unpaired:
        lines.append(
            f"Seeds of transfer have no run from scratch of their own on {_some(list(reported.unpaired))}: changes are "
            "against the mean from scratch, unpaired, and the noise of that mean is not in their deviation."
        )
    if reported.unmatched:
        lines.append(
            f"Some seeds of {_some(list(reported.unmatched))} have transfers but no run from scratch: the table of "
            "methods leaves these seeds out."
        )
    if not analysis.choices.targets:
        lines.append(
            "No pair has a validation score, a reported score and a score from scratch together, so no source can be "
            "chosen."
        )
    return lines


def _classical(analysis: Analysis) -> str:
    """Returns a sentence on targets where no prompt is worth its cost; empty if TF-IDF never wins, or is unknown."""
    reported, ahead = analysis.reported, []
    for target, score in analysis.results.classical.items():
        if target in reported.column:
            means = [reported.cell(source, target).mean for source in (None, *reported.sources)]
            best = max((mean for mean in means if math.isfinite(mean)), default=math.nan)
            if score >= best:
                ahead.append(f"{target} ({score:.1f} against {best:.1f})")
    if not ahead:
        return ""
    return (
        f"TF-IDF with logistic regression, which takes seconds, is at least as good as every prompt on {_some(ahead)}: "
        "no prompt is worth its cost there."
    )


def targets_without_transfer(analysis: Analysis) -> list[dict[str, Any]]:
    """Returns the scores without transfer of each target and each candidate that was not chosen as one."""
    results = analysis.results
    everything = ScoreArrays.of(results.reported, (), (*results.targets, *results.candidates))
    return [
        {
            "task": task, "family": results.families.get(task), "metric": results.metrics.get(task),
            "target": task in results.targets,
            "majority": known(results.majority.get(task)), "zero_shot": known(results.zero_shot.get(task)),
            "classical": known(results.classical.get(task)),
            "from_scratch": everything.cell(None, task).to_json(),
            "learned": learned(results, task, everything.cell(None, task)),
        }
        for task in everything.targets
    ]  # fmt: skip


def advice(analysis: Analysis, target: str) -> dict[str, Any]:
    """Returns the sources to try for a task like this, best by validation first, and a sentence."""
    similarity = _similarities(analysis, target)
    ranks = {
        source: rank
        for rank, source in enumerate(sorted(similarity, key=lambda one: -similarity[one]), start=1)
    }
    rows: list[dict[str, Any]] = []
    for source in analysis.results.sources:
        change, validation = analysis.change(source, target), analysis.validation.cell(source, target)
        if change is None and math.isnan(validation.mean):
            continue
        rows.append({
            "source": source, "family": analysis.results.families.get(source),
            "learned": analysis.results.learned_sources.get(source),
            "similarity": known(similarity.get(source)), "similarity_rank": ranks.get(source),
            "validation": validation.to_json(),
            "reported": analysis.reported.cell(source, target).to_json(),
            "gain": known(change.gain) if change else None,
            "error_reduction": known(change.error_reduction) if change else None,
            "outcome": change.outcome if change else "not compared",
        })  # fmt: skip
    loss = _losses(analysis, target)
    order = {row["source"]: (_validation(row), -loss.get(row["source"], math.inf)) for row in rows}
    rows.sort(key=lambda row: order[row["source"]], reverse=True)
    tied = {row["source"] for row in rows if order[row["source"]] == order[rows[0]["source"]]}
    return {"sources": rows, "advice": _sentence(rows, analysis.results.reported_split, tied)}


def _losses(analysis: Analysis, target: str) -> dict[str, float]:
    """Returns each source's mean validation loss over seeds, which breaks ties; without those that lack it."""
    reported = analysis.reported
    losses = analysis.choices.loss[:, reported.column[target]]
    return {
        source: float(np.nanmean(row))
        for source, row in zip(reported.sources, losses, strict=True)
        if np.isfinite(row).any()
    }


def _similarities(analysis: Analysis, target: str) -> dict[str, float]:
    if analysis.metric is None:
        return {}
    found = analysis.similarities[analysis.metric]
    places = {task: place for place, task in enumerate(found.tasks)}
    if target not in places:
        return {}
    return {
        source: float(found.values[places[source], places[target]])
        for source in analysis.results.sources
        if source in places and is_pair(source, target)
    }


def _sentence(rows: list[dict[str, Any]], split: str, tied: Collection[str]) -> str:
    if not rows:
        return "No source has been tried yet."
    helping = [row for row in rows if row["outcome"] == "helps"]
    if helping:
        names = ", ".join(f"{row['source']} ({row['gain']:+.1f})" for row in helping[:3])
        told = f"Try {names}: best by validation of the {len(helping)} that help beyond noise on {split}."
    elif all(row["outcome"] in ("noise unknown", "not compared") for row in rows):
        ahead = [row for row in rows if (row["gain"] or 0) > 0]
        if not ahead and any(row["gain"] is not None for row in rows):
            told = (
                "No source scores higher than from scratch; whether that is more than noise takes more seeds."
            )
        else:
            best = (ahead or rows)[0]
            gain = "" if best["gain"] is None else f" ({best['gain']:+.1f})"
            told = f"Try {best['source']}{gain}, best by validation; whether that is more than noise takes more seeds."
            if best["source"] in tied and len(tied) > 1:
                others = ", ".join(row["source"] for row in rows if row["source"] in tied and row is not best)
                told += f" Validation does not tell it from {others}."
    else:
        told = "No source helps beyond noise: tune from scratch, or add sources."
    nearest = next((row for row in rows if row["similarity_rank"] == 1), None)
    if nearest is not None and nearest["gain"] is not None:
        told += (
            f" The most similar source is {nearest['source']} ({nearest['gain']:+.1f}, {nearest['outcome']})."
        )
    return told


def _validation(row: dict[str, Any]) -> float:
    mean: float | None = row["validation"]["mean"]
    return -math.inf if mean is None else mean


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
