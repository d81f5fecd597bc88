"""Heatmaps: error reductions of sources and targets (figure 3 of SPoT), similarities of tasks (figure 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.gain import Change
from spoton.study.analysis.similarities import TaskSimilarities
from spoton.study.report.figures.drawing import (
    FONT,
    INK,
    LINE,
    Drawing,
    canvas,
    color_of,
    family_colors,
    family_legend,
    source_label,
)
from spoton.study.report.parts import DROPPED, number, spread
from spoton.study.results.score_arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

CLIP = 25
"""Limit of the colour scale of error reductions, as in SPoT's figure 3."""
_GAIN_COLORS = ("#8c1d18", "#d6604d", "#f7c6b0", "#ffffff", "#b5d4ea", "#4393c3", "#0b3c73")
_MOST_CELLS = 2000  # more become one image without tooltips; otherwise the page takes megabytes
_ROW, _COLUMN, _SIDE, _STRIP, _GAP = 0.27, 0.62, 0.23, 0.12, 0.05  # inches


def source_order(analysis: Analysis) -> list[str]:
    """Returns sources by mean error reduction, the best first; those without one last."""
    ranked = [source for source, *_ in analysis.by_mean_reduction()]
    there = set(ranked)
    return ranked + [source for source in analysis.results.sources if source not in there]


def transfer_map(analysis: Analysis) -> Drawing:
    """Draws the relative error reduction of sources (rows) and targets (columns)."""
    from matplotlib.colors import LinearSegmentedColormap

    sources, targets = source_order(analysis), list(analysis.results.targets)
    drawing = canvas("transfer")
    axes = drawing.axes(2, 2, _COLUMN * len(targets), _ROW * len(sources))
    colors = LinearSegmentedColormap.from_list("gain", _GAIN_COLORS)
    for s, source in enumerate(sources):
        for t, target in enumerate(targets):
            change = analysis.change(source, target)
            if change is None or not math.isfinite(change.error_reduction):
                _cell(drawing, axes, (t, s), "#f0f2f4", _words(change, source, target))
                continue
            value = change.error_reduction
            _cell(drawing, axes, (t, s), colors((value / CLIP + 1) / 2), _words(change, source, target))
            axes.text(
                t, s, f"{number(value, sign=True)}{mark(analysis, change)}", ha="center", va="center",
                fontsize=FONT - 1, color="white" if abs(value) > 0.7 * CLIP else INK, in_layout=False,
            )  # fmt: skip
    _names(axes, targets, [source_label(analysis, source) for source in sources], top=True)
    axes.set_xlabel("target", labelpad=6)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("source")
    families = family_colors(analysis, sources)
    _strip(drawing, axes, [color_of(analysis, source, families) for source in sources] if families else [])
    family_legend(drawing, axes, families, 0.15)
    _color_bar(drawing, axes, colors, (-CLIP, CLIP), "relative error reduction (%)", both_ends=True)
    return drawing


def similarity_map(
    analysis: Analysis, found: TaskSimilarities, order: Sequence[str], tree: Array | None
) -> Drawing:
    """Draws the similarity of all tasks, in the order that all maps of a report share, under the tree that gave it."""
    import matplotlib

    places = {task: place for place, task in enumerate(found.tasks)}
    low, high = similarity_range(found.values)
    drawing = canvas(f"similarity-{found.metric}")
    side = _SIDE * len(order)
    axes = drawing.axes(2, 2, side, side)
    colors = matplotlib.colormaps["viridis"]
    shown = [places[task] for task in order]
    if len(order) ** 2 > _MOST_CELLS:
        axes.imshow(
            found.values[np.ix_(shown, shown)], cmap=colors, vmin=low, vmax=high, interpolation="none"
        )
    for i, a in enumerate(order) if len(order) ** 2 <= _MOST_CELLS else ():
        for j, b in enumerate(order):
            value = found.values[places[a], places[b]]
            share = (value - low) / (high - low) if high > low else 0.5
            _cell(
                drawing, axes, (j, i), colors(min(1.0, max(0.0, share))), f"{a} and {b}: {number(value, 3)}"
            )
    _names(axes, order, order, top=False)
    families = family_colors(analysis, order)
    _strip(drawing, axes, [color_of(analysis, task, families) for task in order] if families else [])
    if tree is not None:
        _tree(drawing, axes, tree)
    longest = max((len(task) for task in order), default=0)
    family_legend(drawing, axes, families, 0.15 + 0.067 * longest)
    _color_bar(drawing, axes, colors, (low, high), f"similarity ({found.metric})", both_ends=False)
    return drawing


def similarity_range(values: Array) -> tuple[float, float]:
    """Returns the range over different tasks, since a task's similarity to itself would hide all other contrasts."""
    different = values[~np.eye(len(values), dtype=bool)]
    different = different[np.isfinite(different)]
    return (float(different.min()), float(different.max())) if different.size else (0.0, 1.0)


def mark(analysis: Analysis, change: Change) -> str:
    """Returns the mark after a pair's number: * beyond noise, and a mark if halving dropped a seed."""
    dropped = any(
        (change.source, change.target, seed) in analysis.results.dropped for seed in analysis.reported.seeds
    )
    return ("*" if change.beyond_noise else "") + (DROPPED if dropped else "")


def _words(change: Change | None, source: str, target: str) -> str:
    if change is None:
        return f"{source} to {target}: no score"
    return (
        f"{source} to {target}: {spread(change.score)}, from scratch {spread(change.scratch)}, gain "
        f"{number(change.gain, sign=True)} ({change.outcome})"
    )


def _cell(drawing: Drawing, axes: Axes, place: tuple[int, int], color: object, words: str) -> None:
    from matplotlib.patches import Rectangle

    x, y = place
    # Cells and their numbers are inside the axes, so measuring the canvas can leave them out.
    cell = Rectangle(
        (x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8, in_layout=False
    )
    axes.add_patch(cell)
    drawing.tell(cell, words)


def _names(axes: Axes, columns: Sequence[str], rows: Sequence[str], *, top: bool) -> None:
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    slanted = any(len(name) > 6 for name in columns)
    if top:
        axes.xaxis.tick_top()
        axes.set_xticks(
            range(len(columns)), columns, rotation=45 if slanted else 0, ha="left" if slanted else "center",
            rotation_mode="anchor" if slanted else None,
        )  # fmt: skip
    else:
        axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)


def _strip(drawing: Drawing, axes: Axes, colors: Sequence[str]) -> None:
    """Draws a strip with the colour of each row's family, between the cells and their names."""
    if not colors:
        return
    left, bottom, _, height = _box(drawing, axes)
    strip = drawing.axes(left - _GAP - _STRIP, bottom, _STRIP, height)
    strip.set_xlim(0, 1)
    strip.set_ylim(len(colors) - 0.5, -0.5)
    strip.barh(range(len(colors)), 1, height=0.92, left=0, color=list(colors))
    strip.set_axis_off()
    axes.tick_params(axis="y", pad=3 + 72 * (_STRIP + _GAP))


def _tree(drawing: Drawing, axes: Axes, tree: Array) -> None:
    from scipy.cluster.hierarchy import dendrogram

    left, bottom, width, height = _box(drawing, axes)
    above = drawing.axes(left, bottom + height + _GAP, width, 0.7)
    drawn = dendrogram(tree, no_plot=True)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        above.plot((np.array(x) - 5) / 10, y, color=LINE, linewidth=1)  # scipy counts leaves as 5, 15, 25
    above.set_xlim(axes.get_xlim())
    above.set_ylim(bottom=0)
    above.set_axis_off()


def _color_bar(
    drawing: Drawing, axes: Axes, colors: Colormap, ends: tuple[float, float], label: str, *, both_ends: bool
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    left, bottom, width, height = _box(drawing, axes)
    high = min(height, 2.6)
    # Taller than a few rows, to fit its own label.
    high = max(high, 1.5)
    bar = drawing.axes(left + width + 0.3, bottom + height - high, 0.14, high)
    drawn = drawing.figure.colorbar(
        ScalarMappable(Normalize(*ends), colors),
        cax=bar,
        label=label,
        extend="both" if both_ends else "neither",
    )
    drawn.outline.set_linewidth(0.5)
    bar.tick_params(labelsize=FONT)


def _box(drawing: Drawing, axes: Axes) -> tuple[float, float, float, float]:
    """Returns left, bottom, width and height of axes in inches."""
    wide, high = drawing.figure.get_size_inches()
    box = axes.get_position()
    return box.x0 * wide, box.y0 * high, box.width * wide, box.height * high
