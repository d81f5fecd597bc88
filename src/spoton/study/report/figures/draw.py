"""Draws every figure that a study has the numbers for."""

from __future__ import annotations

import math

from spoton.study.analysis.analyse import Analysis
from spoton.study.report.figures.drawing import Drawing, style
from spoton.study.report.figures.heatmaps import similarity_map, transfer_map
from spoton.study.report.figures.panels import forest_panels, scatter_panels
from spoton.study.report.figures.retrieval import retrieval_curves


def draw_figures(analysis: Analysis) -> dict[str, Drawing]:
    """Returns all figures by name, in the order of the report."""
    with style("spoton"):
        drawings = [transfer_map(analysis), *forest_panels(analysis)]
        if analysis.similarities:
            first = next(iter(analysis.similarities.values()))
            order = [first.tasks[place] for place in first.order]
            drawings += [
                similarity_map(analysis, found, order, first.tree) for found in analysis.similarities.values()
            ]
        if any(math.isfinite(one.pearson) for found in analysis.correlations.values() for one in found):
            drawings += scatter_panels(analysis)
        if analysis.correlations:
            drawings.append(retrieval_curves(analysis))
    return {drawing.name: drawing for drawing in drawings}
