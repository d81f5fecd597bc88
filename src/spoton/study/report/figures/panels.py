"""Small panels, one per target: similarity against error reduction (figure 5 of SPoT), and gains with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.correlation import Correlation
from spoton.study.analysis.gain import Change
from spoton.study.analysis.similarities import Measure
from spoton.study.report.figures.drawing import (
    LINE,
    SOFT,
    Drawing,
    canvas,
    color_of,
    family_colors,
    family_legend,
    marker_of,
    plain,
    source_label,
)
from spoton.study.report.figures.heatmaps import source_order
from spoton.study.report.parts import number, probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCATTERS, _FORESTS = 8, 12  # targets per figure; more go into the next figure
_ACROSS = 4
_MOST_WORDS = 600
_HELPS, _HURTS = "#1a6b3c", "#a8321f"


def scatter_panels(analysis: Analysis) -> list[Drawing]:
    """Draws a row per target and a column per similarity; a point is a transfer run."""
    metrics = list(analysis.correlations)
    found = {
        metric: {one.target: one for one in analysis.correlations[metric] if one.n} for metric in metrics
    }
    targets = [target for target in analysis.results.targets if any(target in found[m] for m in metrics)]
    return [
        _scatters(analysis, found, targets[start : start + _SCATTERS], _part("scatter", start // _SCATTERS))
        for start in range(0, len(targets), _SCATTERS)
    ]


def forest_panels(analysis: Analysis) -> list[Drawing]:
    """Draws a panel per target: the gain of every source with its 95 % interval."""
    targets = [
        t for t in analysis.results.targets if any(analysis.change(s, t) for s in analysis.results.sources)
    ]
    return [
        _forests(analysis, targets[start : start + _FORESTS], _part("gains", start // _FORESTS))
        for start in range(0, len(targets), _FORESTS)
    ]


def _part(name: str, part: int) -> str:
    return name if part == 0 else f"{name}-{part + 1}"


def _scatters(
    analysis: Analysis, found: dict[Measure, dict[str, Correlation]], targets: Sequence[str], name: str
) -> Drawing:
    drawing = canvas(name)
    width, height, gap_x, gap_y = 2.75, 1.55, 0.62, 0.72
    colors = family_colors(analysis, analysis.results.sources)
    axes = None
    for row, target in enumerate(targets):
        for column, metric in enumerate(found):
            axes = drawing.axes(1 + column * (width + gap_x), 9 - row * (height + gap_y), width, height)
            plain(axes)
            one = found[metric].get(target)
            if one is not None:
                _points(drawing, axes, analysis, one, colors)
                axes.set_title(f"{target}, {metric.replace('_', ' ')}\n{_statistics(one)}", loc="left")
            axes.ticklabel_format(useOffset=False)  # keys with a common start differ in the fifth digit
            if row == len(targets) - 1:
                axes.set_xlabel(
                    "minus the untuned loss"
                    if metric == "untuned_loss"
                    else f"similarity ({metric.replace('_', ' ')})"
                )
            if column == 0:
                axes.set_ylabel("error reduction (%)")
                first = axes
    if axes is not None:
        family_legend(drawing, first, colors, 0.55, markers=True)
    return drawing


def _statistics(one: Correlation) -> str:
    low, high = one.interval
    bounds = "" if math.isnan(low) else f" [{number(low, 2)}, {number(high, 2)}]"
    return f"r = {number(one.pearson, 2)}{bounds}, p = {probability(one.pearson_p)}"


def _points(
    drawing: Drawing, axes: Axes, analysis: Analysis, one: Correlation, colors: dict[str, str]
) -> None:
    axes.axhline(0, color=LINE, linewidth=0.8)
    groups: dict[tuple[str, bool, str | None, int | None], list[tuple[str, int | None, float, float]]] = {}
    for point in one.points:
        color = color_of(analysis, point[0], colors)
        hollow = analysis.results.learned_sources.get(point[0]) is False
        # Points with tooltips are drawn one by one, as long as they are few.
        alone = point[:2] if _has_words(analysis) else (None, None)
        groups.setdefault((color, hollow, *alone), []).append(point)
    for (color, hollow, *_), points in groups.items():
        drawn = axes.scatter(
            [x for *_, x, _ in points], [y for *_, y in points], s=18, facecolors="none" if hollow else color,
            edgecolors=color, marker=marker_of(color), alpha=0.85, linewidths=1,
        )  # fmt: skip
        if _has_words(analysis):
            source, seed, x, y = points[0]
            which = "" if seed is None else f", seed {seed}"
            drawing.tell(
                drawn, f"{source_label(analysis, source)}{which}: {number(x, 3)}, {number(y, sign=True)} %"
            )
    axes.margins(0.06, 0.1)
    # Similarities may differ only in the fifth digit, so show full numbers, few of them, without an offset.
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(axis="x", nbins=4)


def _has_words(analysis: Analysis) -> bool:
    """Returns whether points have tooltips: thousands of them would make a page of tens of megabytes."""
    return len(analysis.changes) <= _MOST_WORDS


def _forests(analysis: Analysis, targets: Sequence[str], name: str) -> Drawing:
    sources = source_order(analysis)
    across = min(_ACROSS, len(targets))
    width, height = 2.0, 0.16 * len(sources) + 0.15
    edge = _edge(analysis)
    drawing = canvas(name)
    for i, target in enumerate(targets):
        row, column = divmod(i, across)
        axes = drawing.axes(2 + column * (width + 0.18), 9 - row * (height + 0.55), width, height)
        plain(axes)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        _gains(drawing, axes, analysis, target, sources, edge)
        axes.set_xlim(-edge, edge)
        axes.set_ylim(len(sources) - 0.5, -0.5)
        labels = [source_label(analysis, source) for source in sources] if column == 0 else []
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0)
        axes.set_title(target, loc="left")
        if i + across >= len(targets):
            axes.set_xlabel("gain (points)")
    return drawing


def _gains(
    drawing: Drawing, axes: Axes, analysis: Analysis, target: str, sources: Sequence[str], edge: float
) -> None:
    """Draws a point and a line for each source; values beyond the edges end in an arrow."""
    rows = [(y, change) for y, source in enumerate(sources) if (change := analysis.change(source, target))]
    known = [(y, change) for y, change in rows if change.interval.is_known]
    axes.hlines(
        [y for y, _ in known], [max(one.interval.low, -edge) for _, one in known],
        [min(one.interval.high, edge) for _, one in known], colors=[gain_color(one) for _, one in known], linewidth=1.3,
    )  # fmt: skip
    for x, arrow, beyond in (
        (-edge, "<", [(y, one) for y, one in known if one.interval.low < -edge]),
        (edge, ">", [(y, one) for y, one in known if one.interval.high > edge]),
    ):
        axes.scatter(
            [x] * len(beyond), [y for y, _ in beyond], s=12, marker=arrow, c=[gain_color(one) for _, one in beyond],
            clip_on=False, linewidths=0,
        )  # fmt: skip
    for part in [[row] for row in rows] if _has_words(analysis) else [rows]:
        points = axes.scatter(
            [min(max(one.gain, -edge), edge) for _, one in part], [y for y, _ in part], s=16, clip_on=False, zorder=3,
            facecolors=[gain_color(one) if one.interval.is_known else "white" for _, one in part],
            edgecolors=[gain_color(one) for _, one in part], linewidths=1,
        )  # fmt: skip
        if len(part) == 1:
            one = part[0][1]
            words = f"{one.source} to {target}: {number(one.gain, sign=True)} points"
            drawing.tell(points, words + (f", {one.interval.text()}" if one.interval.is_known else ""))


def gain_color(change: Change) -> str:
    """Returns green or red where the interval excludes zero and rests on enough seeds."""
    if not change.is_tested:
        return SOFT
    return _HELPS if change.interval.low > 0 else _HURTS if change.interval.high < 0 else SOFT


def _edge(analysis: Analysis) -> float:
    """Returns where all panels cut off gains: twice the range of nearly all gains."""
    gains = np.abs([one.gain for one in analysis.changes])
    return float(max(1.0, 2 * np.quantile(gains, 0.95)))
