"""The report's last sections: definitions of the numbers, and their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.gain import MIN_TESTED_SEEDS
from spoton.study.analysis.verdicts import MIN_PAIRS, MIN_SEEDS, MIN_SOURCES, MIN_TARGETS
from spoton.study.report.parts import Content, Section, Table
from spoton.tuning.record import versions

_MANY = 12
_MISSING_SHOWN = 40


def definitions(analysis: Analysis) -> Section:
    """Returns the definition of each number."""
    blocks = [
        "Relative error reduction: 100 · (score - base) / (100 - base), where base is the score from scratch; of means "
        "over seeds. The deviation is over seeds, each against its own run from scratch. Undefined where base is 100.",
        "Pair: a source and a target that are different tasks. A task's score from its own prompt counts nowhere.",
        "Beyond noise: the difference of two means exceeds the standard deviation over seeds of "
        "either side. In the table of "
        "methods: the mean change exceeds its own standard deviation over seeds. p and 95 % "
        "intervals of gains: a paired t "
        "test where both sides have the same seeds, else Welch's t test; two-sided. A pair with fewer than "
        f"{MIN_TESTED_SEEDS} seeds counts as significant nowhere: two gains may be equal by chance.",
        f"Verdicts take at least {MIN_SEEDS} seeds on either side (correlations: one), {MIN_SOURCES} "
        f"sources and {MIN_PAIRS} "
        f"pairs; of model tuning, {MIN_TARGETS} targets. Below that the answer is: too little to say.",
    ]
    if analysis.similarities:
        blocks += [
            "Similarity: average_tokens, the cosine of the mean tokens; per_token_average, the mean "
            "cosine over all pairs "
            "of tokens; maximum_token, each token's highest cosine in the other prompt, averaged "
            "over both. Between tasks: "
            "the mean over all pairs of seeds, of a task with itself as well.",
            "Kept: share of the oracle's change. nDCG: relevance is the score above the worst source's, discounted by "
            "log2(rank + 1). Regret@k: percent of the best source's score that is lost by trying "
            "only the k most similar.",
        ]
    return Section("Definitions", blocks)


def provenance(analysis: Analysis) -> Section:
    """Returns facts about the study, its omissions, and its missing cells."""
    facts = dict(_flat("", {k: v for k, v in analysis.results.metadata.items() if k != "notes"}))
    facts |= {f"analysed with {name}": version for name, version in versions().items()}
    blocks: list[Content] = [Table("provenance", ("what", "value"), sorted(facts.items()))]
    if analysis.results.left_out:
        columns = ("source", "target", "why it is left out")
        blocks.append(Table("left_out", columns, analysis.results.left_out))
    missing = analysis.reported.missing(analysis.results.untried)
    if missing:
        shown = [
            (source or "from scratch", target, "mean" if seed is None else str(seed))
            for source, target, seed in missing[:_MISSING_SHOWN]
        ]
        more = f", the first {_MISSING_SHOWN}" if len(missing) > _MISSING_SHOWN else ""
        cells = "1 missing cell" if len(missing) == 1 else f"{len(missing)} missing cells"
        blocks.append(Table("missing", ("source", "target", "seed"), shown, f"{cells}{more}"))
    return Section("Provenance", blocks)


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Returns nested facts as lines, and a long list of numbers as its sum and median."""
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
    if value is None or value == "":
        return []
    return [(prefix, f"{value:g}" if isinstance(value, float) else str(value))]
