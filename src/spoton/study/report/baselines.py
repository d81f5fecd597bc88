"""The report's section on model tuning; there is none if no model was tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.baselines import baselines
from spoton.study.report.parts import Section, Table, number, spread
from spoton.study.results.scores import Mean

_SCORES = ("from_scratch", "transfer", "retrieval", "model_tuning")
_WORDS = {"prompt": "a prompt", "model": "the model"}


def baseline_sections(analysis: Analysis) -> list[Section]:
    """A table of scores by target, and one of what is tuned."""
    found = baselines(analysis)
    if found is None:
        return []
    k = found["k"]
    columns = ("target", "zero-shot", "from scratch", "transfer", f"retrieval, k = {k}", "model tuning")
    rows = [
        (row["target"], number(row["zero_shot"]), *(spread(_of(row[name])) for name in _SCORES))
        for row in found["targets"]
    ]
    told = (
        f"Scores on the {found['split']} split, mean ± standard deviation (seeds). Transfer: the source that is best "
        f"by validation, in each seed. Retrieval: the best by validation of the {k} most similar sources"
        f"{' by ' + found['similarity'] if found['similarity'] else ''}. Model tuning: all weights, on the same rows, "
        "with the same looks at the validation split."
    )
    costs = [
        (_WORDS[name], f"{size['parameters']:,}", f"{size['bytes']:,}")
        for name, size in found["tuned"].items()
    ]
    sizes = "What is tuned and kept per task, in float32"
    if found["ratio"]:
        sizes += f"; the model has {found['ratio']:,.0f} times as many numbers as a prompt"
    scores = Table(columns, rows, frozenset(columns[1:]))
    tuned = Table(("tuned", "numbers", "bytes"), costs, frozenset({"numbers", "bytes"}))
    return [Section("Model tuning", [told, scores, f"{sizes}.", tuned])]


def _of(found: Mapping[str, Any]) -> Mean:
    mean, std = (math.nan if found[name] is None else float(found[name]) for name in ("mean", "std"))
    return Mean(mean, std, found["n"] or 0)
