"""An analysis as one JSON document: every number that the report shows, and the definitions they follow."""

from __future__ import annotations

from typing import Any

from spoton.study.analysis.advice import advice, caveats, targets_without_transfer
from spoton.study.analysis.analyse import Analysis, chance, saturated
from spoton.study.analysis.by_target import ways_by_target
from spoton.study.analysis.gain import Change
from spoton.study.analysis.model_tuning import model_tuning
from spoton.study.analysis.verdicts import verdicts
from spoton.study.results.score_arrays import known

ANALYSIS_FORMAT = "spoton-study-analysis-1"


def analysis_json(analysis: Analysis) -> dict[str, Any]:
    """Returns the analysis as plain values; unknown numbers are None."""
    results, reported = analysis.results, analysis.reported
    missing = reported.missing(results.untried)
    return {
        "format": ANALYSIS_FORMAT,
        "study": {
            "sources": list(results.sources), "targets": list(results.targets), "families": dict(results.families),
            "seeds": [seed for seed in reported.seeds if seed is not None],
            "chosen_by": "validation", "reported": results.reported_split,
            "cells": {
                "found": len({(one.source, one.target, one.seed) for one in results.reported}),
                "left_out": [list(pair) for pair in results.left_out],
                "missing": [{"source": source, "target": target, "seed": seed} for source, target, seed in missing],
                "missing_pairs": [list(pair) for pair in reported.missing_pairs(results.untried)],
            },
            "missing_keys": results.tasks_without_key(), "unpaired_targets": list(reported.unpaired),
            "learned_sources": dict(results.learned_sources), "keys_are_final_prompts": not results.has_keys
            and bool(results.source_keys),
            "metadata": dict(results.metadata),
        },
        "verdicts": [one.to_json() for one in verdicts(analysis)],
        "caveats": caveats(analysis),
        "candidates": targets_without_transfer(analysis),
        "transfer": {
            "pairs": [
                one.to_json() | {"p_adjusted": known(p, 12)} | _dropped(analysis, one)
                for one, p in zip(analysis.changes, analysis.p_adjusted, strict=True)
            ],
            "chance_beyond_noise": known(chance(analysis)),
            "saturated_targets": saturated(analysis),
            "mean_error_reduction": [
                {
                    "source": source, "error_reduction": known(mean), "median_error_reduction": known(median),
                    "targets": n,
                }
                for source, mean, median, n in analysis.by_mean_reduction()
            ],
            "above_10": [
                {"source": one.source, "target": one.target, "error_reduction": known(one.error_reduction)}
                for one in analysis.above(10)
            ],
        },
        "by_target": ways_by_target(analysis).to_json(),
        "starts": [group.to_json() for group in analysis.starts],
        "similarity": {metric: one.to_json() for metric, one in analysis.similarities.items()},
        "correlation": {
            metric: [one.to_json() for one in found] for metric, found in analysis.correlations.items()
        },
        "retrieval": {
            "targets": analysis.ranked_targets(),
            "rows": [row.to_json() for row in analysis.rows],
            "rankings": [one.to_json() for one in analysis.rankings],
            "leave_one_target_out": [one.to_json() for one in analysis.held_out],
        },
        "baselines": model_tuning(analysis),
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
    """Returns the seeds of a pair that successive halving ended early, if any."""
    seeds = [
        seed
        for seed in analysis.reported.seeds
        if (change.source, change.target, seed) in analysis.results.dropped
    ]
    return {"dropped_seeds": [seed for seed in seeds if seed is not None]} if seeds else {}
