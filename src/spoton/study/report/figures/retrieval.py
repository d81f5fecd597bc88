"""Plots the change of the score against k, for every similarity, chance, other methods and the oracle."""

from __future__ import annotations

import math

import numpy as np

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.model_tuning import covers_the_study
from spoton.study.analysis.source_choices import MethodResult
from spoton.study.report.figures.drawing import (
    FIGURE_COLORS,
    FONT,
    INK,
    LINE,
    UNCOLORED,
    Drawing,
    canvas,
    marker_of,
    plain,
)
from spoton.study.report.parts import number, percent
from spoton.study.results.study_results import MODEL_TUNING

_HEIGHT = 3.6  # inches


def retrieval_curves(analysis: Analysis) -> Drawing:
    """Draws the change of the average score against the number of sources tried."""
    from matplotlib.ticker import MaxNLocator

    drawing = canvas("retrieval")
    axes = drawing.axes(1, 2, 6.6, _HEIGHT)
    plain(axes)
    colors = iter(FIGURE_COLORS)
    axes.axhline(0, color=LINE, linewidth=0.8)
    for name, rows in curves(analysis).items():
        color = UNCOLORED if name == "random" else next(colors, UNCOLORED)
        line = ":" if name == "random" else "-" if name.startswith("best of top k") else ""
        x, y = np.array([row.k for row in rows]), np.array([row.absolute.mean for row in rows])
        marker = marker_of(color)
        axes.plot(x, y, color=color, linestyle=line, marker=marker, markersize=4, label=name)
        if name != "random":
            # Bands, since error bars of similarities that choose alike would hide each other.
            noise = np.nan_to_num([row.absolute.std for row in rows])
            axes.fill_between(x, y - noise, y + noise, color=color, alpha=0.1, linewidth=0)
        for row in rows:
            (point,) = axes.plot([row.k or 0], [row.absolute.mean], marker=marker, markersize=4, color=color)
            drawing.tell(
                point,
                f"{name}, k = {row.k}: {number(row.absolute.mean, 2, sign=True)} points, {percent(row.kept)} kept",
            )
    levels = (("oracle", INK, "--"), ("oracle-of-other-seeds", INK, ":"), (MODEL_TUNING, "#d55e00", "-."))
    for name, color, dashes in levels:
        # A level over fewer targets or seeds than the curves would be read as being above or below them.
        if (level := analysis.row(name)) and (name != MODEL_TUNING or covers_the_study(analysis)):
            axes.axhline(level.absolute.mean, color=color, linestyle=dashes, label=name.replace("-", " "))
    axes.set(xlabel="k, sources tried or combined", ylabel="change of the average score (points)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # half sources do not exist
    # Below the curves: lines fill the space between them, and a narrow page hides what is to the right.
    axes.legend(
        frameon=False,
        fontsize=FONT,
        loc="upper left",
        bbox_to_anchor=(0, -0.55 / _HEIGHT),
        ncols=2,
        borderaxespad=0,
    )
    return drawing


def curves(analysis: Analysis) -> dict[str, list[MethodResult]]:
    """Returns rows with a k, by the name of their curve."""
    found: dict[str, list[MethodResult]] = {}
    for row in analysis.rows:
        if row.k is not None and math.isfinite(row.absolute.mean):
            name = row.method.replace("-", " ") + (f", {row.metric.replace('_', ' ')}" if row.metric else "")
            found.setdefault(name, []).append(row)
    return {name: sorted(rows, key=lambda row: row.k or 0) for name, rows in found.items()}
