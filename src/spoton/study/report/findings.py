"""The report's first sections: the verdicts with their caveats, and the targets without transfer."""

from __future__ import annotations

import math

from spoton.study.analysis.advice import caveats, targets_without_transfer
from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.verdicts import verdicts
from spoton.study.report.parts import UNKNOWN, Content, Section, Table, mean_of, number, spread, yes_or_no


def findings(analysis: Analysis) -> Section:
    """Returns the size of the study, what is missing in it, and the four verdicts."""
    results = analysis.results
    seeds = [seed for seed in analysis.reported.seeds if seed is not None]
    text = f"{len(results.sources)} source tasks, {len(results.targets)} target tasks, "
    if len(seeds) == 1:
        text += f"one seed ({seeds[0]}): every score is that of a single run."
    else:
        text += f"seeds {', '.join(map(str, seeds))}." if seeds else _without_seeds(analysis)
    text += (
        " Sources, k and checkpoints are chosen by validation scores; test scores are reported."
        if results.reported_split == "test"
        else " There are no test scores: validation scores are both chosen by and reported, which flatters whatever is "
        "chosen."
    )
    missing = analysis.reported.missing(results.untried)
    if missing:
        cells = "1 cell is" if len(missing) == 1 else f"{len(missing)} cells are"
        text += f" {cells} missing; all numbers are of what is there."
    if results.dropped:
        cells = (
            "1 transfer cell was"
            if len(results.dropped) == 1
            else f"{len(results.dropped)} transfer cells were"
        )
        text += (
            f" {cells} dropped by successive halving, with the best score reached by then, which more steps might have "
            "raised: what is said of weak sources is a lower bound."
        )
    rows = [(one.question, one.answer, one.sentence) for one in verdicts(analysis)]
    blocks: list[Content] = [text, Table("findings", ("question", "answer", "numbers"), rows)]
    blocks += [f"Note: {line}" for line in caveats(analysis)]
    return Section("Findings", blocks)


def targets_alone(analysis: Analysis) -> Section:
    """Returns what each task scores without transfer."""
    both = bool(analysis.results.candidates)
    rows = [
        (
            row["task"], row["family"] or UNKNOWN, row["metric"] or UNKNOWN, yes_or_no(row["target"] if both else None),
            number(row["majority"]), number(row["zero_shot"]), number(row["classical"]),
            spread(mean_of(row["from_scratch"])), yes_or_no(row["learned"]),
        )
        for row in targets_without_transfer(analysis)
    ]  # fmt: skip
    columns = (
        "task",
        "family",
        "metric",
        "used as target",
        "majority",
        "zero-shot",
        "TF-IDF",
        "from scratch",
        "learned",
    )
    table = Table("targets", columns, rows).filled
    text = (
        f"What each task scores without transfer, with a prompt tuned from scratch ({deviations(analysis)})"
    )
    if "majority" in table.columns or "zero-shot" in table.columns:
        text += (
            ", and what there is to beat: always the most frequent answer, and the bare model. A "
            "task is learned if tuning "
            "from scratch is ahead of both by more than its standard deviation"
        )
    return Section("Targets without transfer", [f"{text}.", table])


def _without_seeds(analysis: Analysis) -> str:
    """Returns what scores without a seed are, as far as the table says."""
    sizes = {one.n for one in analysis.reported.given.values()}
    if sizes == {1}:
        return "every score is that of a single run."
    if 0 in sizes and not any(math.isfinite(one.std) for one in analysis.reported.given.values()):
        return "scores without a seed: single runs, or means over an unknown number of them."
    return "scores that are means over seeds."


def deviations(analysis: Analysis) -> str:
    """Returns the meaning of a score in words: a single run is not called a mean."""
    given = analysis.reported.given.values()
    if not analysis.reported.is_seeded.any() and not any(math.isfinite(one.std) for one in given):
        return (
            "scores of single runs"
            if {one.n for one in given} == {1}
            else "scores, whose deviations are unknown"
        )
    if sum(analysis.reported.is_seeded) == 1:
        return "scores of single runs"
    return "mean ± standard deviation over seeds, and their number"
