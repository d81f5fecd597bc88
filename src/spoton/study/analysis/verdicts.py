"""Verdicts on the four claims of SPoT, in one sentence each, computed from a study's numbers.

Each verdict is `yes`, `no`, `mixed` or `unknown`, by a rule that its sentence states. Below a minimum of seeds, sources
and pairs, which the sentence also states, it is `too little to say`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spoton.study.analysis.analyse import Analysis, chance
from spoton.study.analysis.gain import MIN_TESTED_SEEDS
from spoton.study.analysis.held_out import KEEP
from spoton.study.analysis.model_tuning import mixture_sentence, model_tuning, ratio_sentence
from spoton.study.analysis.source_choices import MethodResult
from spoton.study.analysis.start_groups import DIFFERENCE, Effect, StartGroup
from spoton.study.results.score_arrays import Mean
from spoton.study.results.study_results import MODEL_TUNING

TOO_LITTLE = "too little to say"
MIN_SEEDS = 2
"""Fewer have no deviation, so no gain can be distinguished from noise."""
MIN_SOURCES = 5
"""With fewer, the most similar half is two sources, and chance alone keeps much of the best one's gain."""
MIN_PAIRS = 12
"""Five heads in five tosses have p = 0.06; with a dozen pairs, a split of ten to two has p = 0.04."""

MIN_TARGETS = 3
"""For a comparison with model tuning, which often has a single run."""


@dataclass(frozen=True)
class Verdict:
    """An answer to one question.

    Attributes:
        question: The claim as a question.
        answer: `yes`, `no`, `mixed`, `unknown` or `too little to say`; for model tuning `reached`,
            `closer` or `no closer`.
        sentence: The numbers behind it.
    """

    question: str
    answer: str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def verdicts(analysis: Analysis) -> tuple[Verdict, ...]:
    """Returns the four verdicts in the paper's order, and whether the relation helps, where families are known."""
    found = _helps(analysis), _similar(analysis), _retrieval(analysis), _model_tuning(analysis)
    groups = {group.name: group for group in analysis.starts}
    return (*found, _relation(groups)) if groups else found


def signed(found: Mean) -> str:
    """Returns a change with its deviation and seeds, such as `+2.3 ± 0.4 (n = 3)`."""
    if math.isnan(found.mean):
        return "unknown"
    spread = "" if math.isnan(found.std) else f" ± {found.std:.1f}"
    seeds = f" (n = {found.n})" if found.n else ""
    return f"{found.mean:+z.1f}{spread}{seeds}"


def shortage(
    analysis: Analysis, *, seeds: int = MIN_SEEDS, pairs: int | None = None, sources: int | None = None
) -> str:
    """Returns what a verdict lacks, as a sentence; empty if there is enough data.

    Args:
        analysis: The analysis.
        seeds: Number of seeds that it needs.
        pairs: Number of pairs; None: all that have a score and one from scratch, of that many seeds if any has.
        sources: Number of sources; None: those of these pairs.
    """
    most = max((one.seeds for one in analysis.changes), default=0)
    counted = [one for one in analysis.changes if one.seeds >= min(seeds, most)]
    there = {
        "seeds": most,
        "sources": len({one.source for one in counted}) if sources is None else sources,
        "pairs": len(counted) if pairs is None else pairs,
    }
    least = {"seeds": seeds, "sources": MIN_SOURCES, "pairs": MIN_PAIRS}
    lacking = [
        f"{there[what] or 'an unknown number of'} {what if there[what] != 1 else what[:-1]} (at least {least[what]})"
        for what in least
        if there[what] < least[what]
    ]
    return f" That is too little for a verdict: {', '.join(lacking)}." if lacking else ""


def _helps(analysis: Analysis) -> Verdict:
    question = "Does transfer help?"
    pairs = analysis.changes
    up = sum(one.gain > 0 for one in pairs)
    outcomes = Counter(one.outcome for one in pairs)
    reductions = analysis.reductions()
    tested = [p for p, one in zip(analysis.p_adjusted, pairs, strict=True) if one.is_tested and one.gain > 0]
    sure = sum(p < 0.05 for p in tested)
    row = analysis.row("best-by-validation")
    assert row is not None
    told = f"The score is higher than from scratch in {up} of {len(pairs)} pairs"
    if np.isfinite(reductions).any():
        told += (
            f"; the relative error reduction is {np.nanmean(reductions):+.1f} % on average, with a median of "
            f"{np.nanmedian(reductions):+.1f} %"
        )
    told += "."
    judged = len(pairs) - outcomes["noise unknown"]
    if judged:
        told += (
            f" Beyond the noise of seeds {outcomes['helps']} of {judged} pairs help and {outcomes['hurts']} hurt"
            f"{_by_chance(analysis, judged)}"
        )
        if any(one.is_tested for one in pairs):
            told += (
                f"; {sure} help{'s' if sure == 1 else ''} with p < 0.05 after correction for that many tests."
            )
        else:
            told += f". No pair has the {MIN_TESTED_SEEDS} seeds that a test of it takes."
    if math.isnan(row.absolute.mean):
        told += (
            " No source can be chosen by validation: no pair has scores on both splits and one from scratch."
        )
    else:
        told += f" Choosing each target's source by validation changes the average score by {_told(row)}."
    if lacking := shortage(analysis):
        return Verdict(question, TOO_LITTLE, told + lacking)
    if not judged:
        return Verdict(question, "unknown", told)
    more, less = outcomes["helps"] > outcomes["hurts"], outcomes["hurts"] > outcomes["helps"]
    chosen = row.absolute.mean > 0 and row.within_noise is not True
    answer = "yes" if more and chosen else "no" if less and not chosen else "mixed"
    return Verdict(question, answer, told)


def _similar(analysis: Analysis) -> Verdict:
    question = "Do similar tasks transfer better?"
    metric = analysis.metric
    every = analysis.correlations.get(metric, ()) if metric else ()
    found = [one for one in every if math.isfinite(one.pearson)]
    if not found and any(one.n for one in every):
        return Verdict(
            question, "unknown",
            "A correlation needs three runs of a target that differ in similarity and in error reduction; no target "
            "has them.",
        )  # fmt: skip
    if not found:
        return Verdict(question, "unknown", "There are no keys of source and target prompts to compare.")
    r = [one.pearson for one in found]
    sure = [one for one in found if one.sure]
    positive = sum(one.pearson > 0 for one in sure)
    told = (
        f"By {metric} of {_compared(analysis)}, Pearson's r of similarity and error reduction is {np.mean(r):+.2f} on "
        f"average over {_targets(len(r))} ({min(r):+.2f} to {max(r):+.2f}); the bootstrap over source tasks leaves out "
        f"zero on {len(sure)} of them, {positive} of these positive. A p-value over single runs is below 0.05 on "
        f"{sum(one.pearson_p < 0.05 for one in found)}."
    )
    # Seeds do not matter here: the scatter of the points includes the noise of a single run.
    sources, points = max(one.tasks for one in found), sum(one.tasks for one in found)
    if lacking := shortage(analysis, seeds=0, pairs=points, sources=sources):
        return Verdict(question, TOO_LITTLE, told + lacking)
    if positive == len(found):
        answer = "yes"
    elif positive > len(sure) - positive:
        answer = "mixed"
    else:
        answer = "no"
    return Verdict(question, answer, told)


def _retrieval(analysis: Analysis) -> Verdict:
    question = "Does retrieval keep most of the oracle's gain?"
    metric, choices = analysis.metric, analysis.choices
    rows = [one for one in analysis.rows if one.method == "best-of-top-k" and one.metric == metric and one.k]
    if not rows or metric is None:
        return Verdict(question, "unknown", "There are no keys to rank sources by.")
    ranked = choices.retrievable
    if not ranked:
        return Verdict(question, "unknown", "No target has a key, a source and a score from scratch.")
    oracle = choices.row("oracle", None, None, choices.oracle(), ranked)
    over = f" over {_targets(len(ranked))}"
    there = np.isfinite(choices.similarity[metric][:, list(ranked)]) & np.isfinite(
        choices.reported[:, list(ranked)]
    )
    lacking = shortage(
        analysis, pairs=int(there.any(axis=2).sum()), sources=int(there.any(axis=(1, 2)).sum())
    )
    if not oracle.absolute.mean > 0:
        told = f"The oracle itself changes the score by {_told(oracle)}{over}, so there is no gain to keep."
        return Verdict(question, TOO_LITTLE if lacking else "unknown", told + lacking)
    enough = next((one for one in rows if one.kept >= KEEP), None)
    first, most = rows[0], rows[-1].k or 0
    told = (
        f"The oracle's gain is {_told(oracle)}{over}. By {metric} of {_compared(analysis)}, the most "
        "similar source alone "
        f"keeps {first.kept:.0%} of that gain, a random source {_kept(analysis.row('random', None, 1))}."
    )
    if enough is None:
        told += f" No k keeps {KEEP:.0%}: all {most} sources, chosen among by validation, keep {rows[-1].kept:.0%}."
        return Verdict(question, TOO_LITTLE if lacking else "no", told + lacking)
    random = analysis.row("random", None, enough.k)
    if enough is not first:
        told += (
            f" k = {enough.k} of {most} keeps {enough.kept:.0%}, {enough.k} random sources {_kept(random)}."
        )
    if lacking:
        return Verdict(question, TOO_LITTLE, told + lacking)
    few = (enough.k or 0) <= most / 2
    ahead = random is not None and enough.kept > random.kept
    return Verdict(question, "yes" if few and ahead else "mixed" if few or ahead else "no", told)


def _model_tuning(analysis: Analysis) -> Verdict:
    question = "How far is prompt tuning with transfer from model tuning?"
    tuned = analysis.row(MODEL_TUNING)
    if tuned is None:
        return Verdict(question, "unknown", "No model was tuned in this study.")
    rows = (model_tuning(analysis) or {"targets": []})["targets"]
    scores = [[row[arm]["mean"] for arm in ("model_tuning", "transfer", "from_scratch")] for row in rows]
    gaps = [one for one in scores if None not in one]
    if not gaps:
        return Verdict(question, "unknown", "No target has model tuning, transfer and a run from scratch.")
    model, prompt, scratch = np.mean(gaps, axis=0)
    told = (
        f"Over {_targets(len(gaps))} model tuning scores {model:.1f}, transfer from the source best by validation "
        f"{prompt:.1f}, tuning from scratch {scratch:.1f}."
    )
    told += mixture_sentence(analysis)
    chosen = analysis.row("best-by-validation")
    in_noise = chosen is not None and chosen.within_noise is True
    if prompt > model:
        told += f" Transfer is ahead of model tuning by {prompt - model:.1f} points."
    elif model > scratch:
        told += f" Transfer closes {(prompt - scratch) / (model - scratch):.0%} of the gap"
        told += ", within noise." if in_noise else "."
    told += ratio_sentence(analysis)
    if len(gaps) < MIN_TARGETS:
        told += f" That is too little for a verdict: {_targets(len(gaps))} (at least {MIN_TARGETS})."
        return Verdict(question, TOO_LITTLE, told)
    noise = tuned.absolute.std
    close = prompt >= model - (0 if math.isnan(noise) else noise)
    answer = "reached" if close else "closer" if prompt > scratch and not in_noise else "no closer"
    return Verdict(question, answer, told)


def _relation(groups: Mapping[str, StartGroup]) -> Verdict:
    question = "Is it the relation that helps?"
    told = [f"{name} {_effect(group.gain)}" for name, group in groups.items() if name != DIFFERENCE]
    sentence = f"Change of the score by what a run starts from: {'; '.join(told)}."
    related, difference = groups.get("related sources"), groups.get(DIFFERENCE)
    if related is not None and math.isfinite(related.arrived.mean):
        sentence += (
            f" From related sources {related.arrived.mean:.0%} of runs reach the highest validation score of tuning "
            "from scratch"
        )
        sentence += (
            f", after {related.steps.mean:.0%} of the steps that it takes to it"
            if math.isfinite(related.steps.mean)
            else ""
        )
        sentence += "."
    if related is None or difference is None:
        return Verdict(
            question, "unknown", f"{sentence} No target has sources of its own family and of others."
        )
    ahead = _effect(difference.gain)
    sentence += f" On targets that have both, related sources are ahead of unrelated ones by {ahead}."
    bounds, by_target = difference.gain.interval, difference.gain.by_target
    if by_target.is_known:
        sentence += f" Student's t over the targets' means: {by_target.low:+.1f} to {by_target.high:+.1f}."
    few = [] if bounds.is_known else [f"{_targets(difference.gain.targets)} (at least {MIN_TARGETS})"]
    if difference.gain.runs < MIN_SEEDS * difference.gain.targets:
        few.append(f"{_pairs(difference.gain.runs)} (at least {MIN_SEEDS} seeds a target)")
    if few:
        return Verdict(
            question, TOO_LITTLE, f"{sentence} That is too little for a verdict: {', '.join(few)}."
        )
    # The bootstrap is too narrow with few targets, and t alone would say nothing if no target differs from another.
    both = [one for one in (bounds, by_target) if one.is_known]
    above, below = all(one.low > 0 for one in both), all(one.high < 0 for one in both)
    answer = "yes" if above and related.gain.mean > 0 else "no" if below else "mixed"
    return Verdict(question, answer, sentence)


def _effect(found: Effect) -> str:
    """Returns a mean with its interval and its number of targets, and of targets with a seed."""
    ends = (
        f"95 %: {found.interval.low:+.1f} to {found.interval.high:+.1f}; " if found.interval.is_known else ""
    )
    return f"{found.mean:+z.1f} points ({ends}{_targets(found.targets)}, {_pairs(found.runs)})"


def _pairs(n: int) -> str:
    return f"{n} pair{'' if n == 1 else 's'} of target and seed"


def _targets(n: int) -> str:
    return f"{n} target{'' if n == 1 else 's'}"


def _compared(analysis: Analysis) -> str:
    return "keys" if analysis.results.has_keys else "final prompts, not keys"


def _by_chance(analysis: Analysis, judged: int) -> str:
    rate = chance(analysis)
    return "" if math.isnan(rate) else f" (by chance alone about {judged * rate / 2:.0f} each would)"


def _told(row: MethodResult) -> str:
    noise = {True: ", within noise", False: "", None: ", noise unknown"}[row.within_noise]
    return f"{signed(row.absolute)} points{noise}"


def _kept(row: MethodResult | None) -> str:
    return "an unknown share" if row is None else f"{row.kept:.0%}"
