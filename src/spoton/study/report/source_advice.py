"""The report's section that answers which sources to try for a target."""

from __future__ import annotations

from spoton.study.analysis.advice import advice
from spoton.study.analysis.analyse import Analysis
from spoton.study.report.parts import (
    UNKNOWN,
    Section,
    Table,
    TableCell,
    distinct,
    mean_of,
    number,
    spread,
    yes_or_no,
)


def sources_to_try(analysis: Analysis) -> list[Section]:
    """Returns the sources of each target, the best by validation first."""
    split = analysis.results.reported_split
    similar = "similarity" if analysis.results.has_keys else "similarity of final prompts"
    columns = (
        "source", "family", "learned its own task", similar, "validation", *([split] if split == "test" else []),
        "gain", "error reduction %", "outcome",
    )  # fmt: skip
    parts = [
        Section("Which sources should I try?", ["For each target: its sources, best by validation first."])
    ]
    targets = analysis.results.targets
    for target, name in zip(targets, distinct(map(_table_name, targets)), strict=True):
        found = advice(analysis, target)
        rows: list[list[TableCell]] = []
        for row in found["sources"]:
            near = number(row["similarity"], 3).marked(
                f" (#{row['similarity_rank']})" if row["similarity_rank"] else ""
            )
            reported = [spread(mean_of(row["reported"]))] if split == "test" else []
            rows.append([
                row["source"], row["family"] or UNKNOWN, yes_or_no(row["learned"]), near,
                spread(mean_of(row["validation"])), *reported, number(row["gain"], sign=True),
                number(row["error_reduction"], sign=True), row["outcome"],
            ])  # fmt: skip
        scratch = f"From scratch: {spread(analysis.reported.cell(None, target))}. {found['advice']}"
        parts.append(Section(target, [scratch, Table(name, columns, rows)], level=3))
    return parts


def _table_name(target: str) -> str:
    return "sources_for_" + "".join(letter if letter.isalnum() else "_" for letter in target)
