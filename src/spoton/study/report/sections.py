"""The report section by section, the same in every format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spoton.study.analysis.analyse import Analysis
from spoton.study.report.findings import findings, targets_alone
from spoton.study.report.model_tuning_tables import model_tuning_sections
from spoton.study.report.parts import Section
from spoton.study.report.provenance import definitions, provenance
from spoton.study.report.retrieval_tables import halving, leaving_one_out, retrieval
from spoton.study.report.similarity_tables import correlations, similarities
from spoton.study.report.source_advice import sources_to_try
from spoton.study.report.start_tables import starts
from spoton.study.report.transfer_tables import gains, transfer
from spoton.study.report.ways_table import gains_by_choice

_TITLE = "Transfer study"


def title(analysis: Analysis) -> str:
    """Returns the report's heading."""
    name = analysis.results.metadata.get("name")
    return f"{_TITLE}: {name}" if name else _TITLE


def is_report(text: str) -> bool:
    """Returns whether a text is a report, as Markdown or as a page.

    Both have the heading, and the first and the last of the sections.
    """
    markdown = (rf"\A# {_TITLE}(:|$)", r"^## Findings$", r"^## Provenance$")
    page = (rf"^<h1>{_TITLE}(:|</h1>)", r"^<h2[^>]*>Findings</h2>$", r"^<h2[^>]*>Provenance</h2>$")
    return any(
        all(re.search(pattern, text, re.MULTILINE) for pattern in patterns) for patterns in (markdown, page)
    )


def sections(analysis: Analysis, figures: Sequence[str]) -> list[Section]:
    """Returns all sections of the report.

    Args:
        analysis: Analysis to report.
        figures: Names of the figures that were drawn.
    """
    return [
        findings(analysis), targets_alone(analysis), transfer(analysis), gains(analysis, figures),
        gains_by_choice(analysis), *starts(analysis), *similarities(analysis, figures),
        *correlations(analysis, figures), *retrieval(analysis, figures),
        *leaving_one_out(analysis), *halving(analysis), *model_tuning_sections(analysis),
        *sources_to_try(analysis), definitions(analysis), provenance(analysis),
    ]  # fmt: skip
