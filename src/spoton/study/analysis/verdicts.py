"""What a study says about the four claims of SPoT, in a sentence each, computed from its numbers.

Each verdict is `yes`, `no`, `mixed` or `unknown`, by a rule that its sentence states.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spoton.study.analysis.analyse import Analysis, chance
from spoton.study.analysis.baselines import baselines, ratio_sentence
from spoton.study.analysis.held_out import KEEP
from spoton.study.analysis.retrieval_evaluation import Row
from spoton.study.results.scores import Mean
from spoton.study.results.study_results import MODEL_TUNING


@dataclass(frozen=True)
class Verdict:
    """An answer to one question.

    Attributes:
        question: The claim as a question.
        answer: ``yes``, ``no``, ``mixed`` or ``unknown``.
        sentence: The numbers it rests on.
    """

    question: str
    answer: str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def verdicts(analysis: Analysis) -> tuple[Verdict, ...]:
    """The four verdicts, in the paper's order."""
    return _helps(analysis), _similar(analysis), _retrieval(analysis), _model_tuning(analysis)


def signed(found: Mean, unit: str = "") -> str:
    """A change with its deviation and seeds, such as ``+2.3 ± 0.4 (n = 3)``."""
    if math.isnan(found.mean):
        return "unknown"
    spread = "" if math.isnan(found.std) else f" ± {found.std:.1f}"
    seeds = f" (n = {found.n})" if found.n else ""
    return f"{found.mean:+.1f}{unit}{spread}{seeds}"


def _helps(analysis: Analysis) -> Verdict:
    question = "Does transfer help?"
    pairs = analysis.changes
    up = sum(one.gain > 0 for one in pairs)
    outcomes = Counter(one.outcome for one in pairs)
    reductions = analysis.reductions()
    sure = sum(p < 0.05 and one.gain > 0 for p, one in zip(analysis.p_adjusted, pairs, strict=True))
    row = analysis.row("best-by-validation")
    assert row is not None
    told = (
        f"The score is higher than from scratch in {up} of {len(pairs)} pairs; the mean relative error reduction is "
        f"{np.nanmean(reductions):+.1f} %." if np.isfinite(reductions).any() else ""
    )  # fmt: skip
    judged = len(pairs) - outcomes["noise unknown"]
    if judged:
        told += (
            f" Beyond the noise of seeds {outcomes['helps']} of {judged} pairs help and {outcomes['hurts']} hurt"
            f"{_by_chance(analysis, judged)}; {sure} help{'s' if sure == 1 else ''} with p < 0.05 after correction for "
            "that many tests."
        )
    told += f" Choosing each target's source by validation changes the average score by {_told(row)}."
    if not judged:
        return Verdict(question, "unknown", told)
    more, less = outcomes["helps"] > outcomes["hurts"], outcomes["hurts"] > outcomes["helps"]
    chosen = row.absolute.mean > 0 and row.within_noise is not True
    answer = "yes" if more and chosen else "no" if less and not chosen else "mixed"
    return Verdict(question, answer, told)


def _similar(analysis: Analysis) -> Verdict:
    question = "Do similar tasks transfer better?"
    metric = analysis.metric
    found = (
        [one for one in analysis.correlations.get(metric, ()) if math.isfinite(one.pearson)] if metric else []
    )
    if not found:
        return Verdict(question, "unknown", "There are no keys of source and target prompts to compare.")
    r = [one.pearson for one in found]
    sure = [one for one in found if one.sure]
    positive = sum(one.pearson > 0 for one in sure)
    told = (
        f"By {metric}, Pearson's r of similarity and error reduction is {np.mean(r):+.2f} on average over {len(r)} "
        f"targets ({min(r):+.2f} to {max(r):+.2f}); the bootstrap over source tasks leaves out zero on {len(sure)} of "
        f"them, {positive} of these positive. A p-value over prompts is below 0.05 on "
        f"{sum(one.pearson_p < 0.05 for one in found)}."
    )
    if positive == len(found):
        answer = "yes"
    elif positive > len(sure) - positive:
        answer = "mixed"
    else:
        answer = "no"
    return Verdict(question, answer, told)


def _retrieval(analysis: Analysis) -> Verdict:
    question = "Does retrieval keep most of the oracle's gain?"
    metric, oracle = analysis.metric, analysis.row("oracle")
    assert oracle is not None
    rows = [one for one in analysis.rows if one.method == "best-of-top-k" and one.metric == metric and one.k]
    if not rows or metric is None:
        return Verdict(question, "unknown", "There are no keys to rank sources by.")
    if not oracle.absolute.mean > 0:
        told = f"The oracle itself changes the score by {_told(oracle)}, so there is no gain to keep."
        return Verdict(question, "unknown", told)
    enough = next((one for one in rows if one.kept >= KEEP), None)
    first, most = rows[0], rows[-1].k or 0
    told = (
        f"The oracle's gain is {_told(oracle)}. The most similar source alone ({metric}) keeps {first.kept:.0%} of it, "
        f"a random one {_kept(analysis.row('random', None, 1))}."
    )
    if enough is None:
        told += f" No k keeps {KEEP:.0%}: all {most} sources, chosen among by validation, keep {rows[-1].kept:.0%}."
        return Verdict(question, "no", told)
    random = analysis.row("random", None, enough.k)
    if enough is not first:
        told += f" k = {enough.k} of {most} keeps {enough.kept:.0%}, {enough.k} random ones {_kept(random)}."
    few = (enough.k or 0) <= most / 2
    ahead = random is not None and enough.kept > random.kept
    return Verdict(question, "yes" if few and ahead else "mixed" if few or ahead else "no", told)


def _model_tuning(analysis: Analysis) -> Verdict:
    question = "How far is prompt tuning with transfer from model tuning?"
    tuned = analysis.row(MODEL_TUNING)
    if tuned is None:
        return Verdict(question, "unknown", "No model was tuned in this study.")
    rows = (baselines(analysis) or {"targets": []})["targets"]
    scores = [[row[arm]["mean"] for arm in ("model_tuning", "transfer", "from_scratch")] for row in rows]
    gaps = [one for one in scores if None not in one]
    if not gaps:
        return Verdict(question, "unknown", "No target has model tuning, transfer and a run from scratch.")
    model, prompt, scratch = np.mean(gaps, axis=0)
    told = (
        f"Over {len(gaps)} targets model tuning scores {model:.1f}, transfer from the source best by validation "
        f"{prompt:.1f}, tuning from scratch {scratch:.1f}."
    )
    chosen = analysis.row("best-by-validation")
    in_noise = chosen is not None and chosen.within_noise is True
    if model > scratch:
        told += f" Transfer closes {(prompt - scratch) / (model - scratch):.0%} of the gap"
        told += ", within noise." if in_noise else "."
    told += ratio_sentence(analysis)
    noise = tuned.absolute.std
    close = prompt >= model - (0 if math.isnan(noise) else noise)
    answer = "reached" if close else "closer" if prompt > scratch and not in_noise else "no closer"
    return Verdict(question, answer, told)


def _by_chance(analysis: Analysis, judged: int) -> str:
    rate = chance(analysis)
    return "" if math.isnan(rate) else f" (by chance alone about {judged * rate / 2:.0f} each would)"


def _told(row: Row) -> str:
    noise = {True: ", within noise", False: "", None: ", noise unknown"}[row.within_noise]
    return f"{signed(row.absolute)} points{noise}"


def _kept(row: Row | None) -> str:
    return "an unknown share" if row is None else f"{row.kept:.0%}"
