"""An analysis as one JSON document: every number that the report shows, and the definitions they follow."""

from __future__ import annotations

import math
from typing import Any

from spoton.study.analysis.analyse import Analysis, chance, learned, saturated
from spoton.study.analysis.baselines import baselines
from spoton.study.analysis.gain import Change
from spoton.study.analysis.verdicts import verdicts
from spoton.study.results.scores import ScoreArrays, known

FORMAT = "spoton-study-analysis-1"


def document(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain values; unknown numbers are None."""
    results, reported = analysis.results, analysis.reported
    missing = reported.missing({(source, target) for source, target, _ in results.left_out})
    return {
        "format": FORMAT,
        "study": {
            "sources": list(results.sources), "targets": list(results.targets), "families": dict(results.families),
            "seeds": [seed for seed in reported.seeds if seed is not None],
            "chosen_by": "validation", "reported": results.reported_split,
            "cells": {
                "found": len({(one.source, one.target, one.seed) for one in results.reported}),
                "left_out": [list(pair) for pair in results.left_out],
                "missing": [{"source": source, "target": target, "seed": seed} for source, target, seed in missing],
            },
            "metadata": dict(results.metadata),
        },
        "verdicts": [one.to_json() for one in verdicts(analysis)],
        "candidates": candidates(analysis),
        "transfer": {
            "pairs": [
                one.to_json() | {"p_adjusted": known(p, 12)} | _dropped(analysis, one)
                for one, p in zip(analysis.changes, analysis.p_adjusted, strict=True)
            ],
            "chance_beyond_noise": known(chance(analysis)),
            "saturated_targets": saturated(analysis),
            "mean_error_reduction": [
                {"source": source, "error_reduction": known(mean), "targets": n}
                for source, mean, n in analysis.by_mean_reduction()
            ],
            "above_10": [
                {"source": one.source, "target": one.target, "error_reduction": known(one.error_reduction)}
                for one in sorted(analysis.changes, key=lambda one: -one.error_reduction)
                if one.error_reduction > 10
            ],
        },
        "similarity": {metric: one.to_json() for metric, one in analysis.similarities.items()},
        "correlation": {
            metric: [one.to_json() for one in found] for metric, found in analysis.correlations.items()
        },
        "retrieval": {
            "rows": [row.to_json() for row in analysis.rows],
            "rankings": [one.to_json() for one in analysis.rankings],
            "leave_one_target_out": [one.to_json() for one in analysis.held_out],
        },
        "baselines": baselines(analysis),
        "halving": {
            "dropped": [
                {"source": source, "target": target, "seed": seed, "steps": steps}
                for (source, target, seed), steps in results.dropped.items()
            ],
            "replayed": [one.to_json() for one in analysis.replays],
        },
        "targets": {target: advice(analysis, target) for target in results.targets},
    }  # fmt: skip


def _dropped(analysis: Analysis, change: Change) -> dict[str, list[int]]:
    """The seeds of a pair that successive halving ended early, if there are any."""
    found = [place[2] for place in analysis.results.dropped if place[:2] == (change.source, change.target)]
    return {"dropped_seeds": sorted(found)} if found else {}


def candidates(analysis: Analysis) -> list[dict[str, Any]]:
    """What each target, and each task that was not chosen as one, does without transfer."""
    results = analysis.results
    everything = ScoreArrays.of(results.reported, (), (*results.targets, *results.candidates))
    return [
        {
            "task": task, "family": results.families.get(task), "metric": results.metrics.get(task),
            "target": task in results.targets,
            "majority": known(results.majority.get(task)), "zero_shot": known(results.zero_shot.get(task)),
            "from_scratch": everything.cell(None, task).to_json(),
            "learned": learned(results, task, everything.cell(None, task)),
        }
        for task in everything.targets
    ]  # fmt: skip


def advice(analysis: Analysis, target: str) -> dict[str, Any]:
    """Which sources to try for a task like this: all of them, best by validation first, and a sentence."""
    similarity = _similarities(analysis, target)
    nearest = sorted(similarity, key=lambda source: -similarity[source])
    rows: list[dict[str, Any]] = []
    for source in analysis.results.sources:
        change, validation = analysis.change(source, target), analysis.validation.cell(source, target)
        if change is None and math.isnan(validation.mean):
            continue
        rows.append({
            "source": source, "family": analysis.results.families.get(source),
            "similarity": known(similarity.get(source)),
            "similarity_rank": nearest.index(source) + 1 if source in nearest else None,
            "validation": validation.to_json(),
            "reported": analysis.reported.cell(source, target).to_json(),
            "gain": known(change.gain) if change else None,
            "error_reduction": known(change.error_reduction) if change else None,
            "outcome": change.outcome if change else "not compared",
        })  # fmt: skip
    rows.sort(key=_validation, reverse=True)
    return {"sources": rows, "advice": _sentence(rows, analysis.results.reported_split)}


def _similarities(analysis: Analysis, target: str) -> dict[str, float]:
    if analysis.metric is None:
        return {}
    found = analysis.similarities[analysis.metric]
    if target not in found.tasks:
        return {}
    column = found.tasks.index(target)
    return {
        source: float(found.values[found.tasks.index(source), column])
        for source in analysis.results.sources
        if source in found.tasks and source != target
    }


def _sentence(rows: list[dict[str, Any]], split: str) -> str:
    if not rows:
        return "No source has been tried yet."
    helping = [row for row in rows if row["outcome"] == "helps"]
    if helping:
        names = ", ".join(f"{row['source']} ({row['gain']:+.1f})" for row in helping[:3])
        told = f"Try {names}: best by validation of the {len(helping)} that help beyond noise on {split}."
    elif all(row["outcome"] in ("noise unknown", "not compared") for row in rows):
        best = rows[0]
        gain = "" if best["gain"] is None else f" ({best['gain']:+.1f})"
        told = f"Try {best['source']}{gain}, best by validation; whether that is more than noise takes more seeds."
    else:
        told = "No source helps beyond noise: tune from scratch, or add sources."
    nearest = next((row for row in rows if row["similarity_rank"] == 1), None)
    if nearest is not None and nearest["gain"] is not None:
        told += (
            f" The most similar one is {nearest['source']} ({nearest['gain']:+.1f}, {nearest['outcome']})."
        )
    return told


def _validation(row: dict[str, Any]) -> float:
    mean: float | None = row["validation"]["mean"]
    return -math.inf if mean is None else mean
