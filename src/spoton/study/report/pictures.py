"""The figures as PNG, for papers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spoton.plots import save_figure
from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.similarities import TaskSimilarities
from spoton.study.report.figures import (
    CLIP,
    COLORS,
    GAIN_COLORS,
    RANDOM_COLOR,
    curves,
    group_of,
    mark,
    similarity_range,
    source_groups,
    source_order,
)
from spoton.study.report.parts import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 200


def draw_pictures(analysis: Analysis, folder: Path) -> dict[str, Path]:
    """Draws every figure that the study has the numbers for.

    Args:
        analysis: What to draw.
        folder: Where to; made if need be.

    Returns:
        The path of each, by the name of the interactive figure.
    """
    drawn = {"transfer": _transfer(analysis)}
    for metric, found in analysis.similarities.items():
        drawn[f"similarity-{metric}"] = _similarity(found)
    if (best := analysis.metric) is not None:
        if any(math.isfinite(one.pearson) for one in analysis.correlations.get(best, ())):
            drawn["scatter"] = _scatter(analysis)
        drawn["retrieval"] = _retrieval(analysis)
    return {name: save_figure(figure, folder / f"{name}.png") for name, figure in drawn.items()}


def _canvas(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(drawing)
    axes = [drawing.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for one in axes:
        one.title.set_parse_math(False)  # a dollar in the name of a task begins no formula
    return drawing, axes


def _names(axes: Axes, columns: list[str], rows: list[str], rotation: float) -> None:
    axes.set_xticks(
        range(len(columns)), columns, rotation=rotation, ha="left" if rotation else "center", parse_math=False
    )
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.tick_params(length=0, labelsize=8, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _transfer(analysis: Analysis) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    sources, targets = source_order(analysis), list(analysis.results.targets)
    places = [analysis.results.sources.index(source) for source in sources]
    values = analysis.reductions()[places]
    drawing, (axes,) = _canvas(2.4 + 0.62 * len(targets), 1.3 + 0.3 * len(sources))
    image = axes.imshow(
        values,
        cmap=LinearSegmentedColormap.from_list("gain", GAIN_COLORS),
        vmin=-CLIP,
        vmax=CLIP,
        aspect="auto",
    )
    for (s, t), value in np.ndenumerate(values):
        change = analysis.change(sources[s], targets[t])
        if change is not None and math.isfinite(value):
            color = "white" if abs(value) > 0.7 * CLIP else "black"
            told = number(float(value), sign=True) + mark(analysis, change)
            axes.text(t, s, told, ha="center", va="center", fontsize=7, color=color)
    _names(axes, targets, sources, 40)
    drawing.colorbar(image, ax=axes, label="relative error reduction (%)", extend="both", shrink=0.8)
    return drawing


def _similarity(found: TaskSimilarities) -> Figure:
    tasks = [found.tasks[place] for place in found.order]
    values = found.values[np.ix_(found.order, found.order)]
    side = 1.8 + 0.24 * len(tasks)
    drawing, (axes,) = _canvas(side + 0.9, side)
    low, high = similarity_range(found.values)
    image = axes.imshow(values, cmap="viridis", vmin=low, vmax=high)
    _names(axes, tasks, tasks, 60)
    drawing.colorbar(image, ax=axes, label=f"similarity ({found.metric})", shrink=0.8)
    return drawing


def _scatter(analysis: Analysis) -> Figure:
    assert analysis.metric is not None
    found = [one for one in analysis.correlations[analysis.metric] if one.n]
    columns = min(4, len(found))
    rows = math.ceil(len(found) / columns)
    drawing, panels = _canvas(2.7 * columns, 2.4 * rows + 0.4, rows, columns)
    groups = {group: COLORS[i % len(COLORS)] for i, group in enumerate(source_groups(analysis))}
    for axes, one in zip(panels, found, strict=False):
        for group, color in groups.items():
            points = [point for point in one.points if group_of(analysis, point[0]) == group]
            axes.scatter(
                [p[2] for p in points], [p[3] for p in points], s=14, color=color, alpha=0.8, label=group
            )
        axes.axhline(0, color="#9aa5b1", linewidth=0.8)
        low, high = one.interval
        bounds = "" if math.isnan(low) else f" [{number(low, 2)}, {number(high, 2)}]"
        axes.set_title(f"{one.target}: r = {number(one.pearson, 2)}{bounds}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(found) :]:
        axes.remove()
    drawing.supxlabel(f"similarity ({analysis.metric})", fontsize=9)
    drawing.supylabel("relative error reduction (%)", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(
        handles, labels, loc="outside upper center", ncols=min(6, len(labels)), frameon=False, fontsize=8
    )
    return drawing


def _retrieval(analysis: Analysis) -> Figure:
    from matplotlib.ticker import MaxNLocator

    drawing, (axes,) = _canvas(7.6, 4.2)
    colors = iter(COLORS)
    for name, rows in curves(analysis).items():
        color = RANDOM_COLOR if name == "random" else next(colors)
        line = ":" if name == "random" else "-" if name.startswith("best-of-top-k") else ""
        x, y = [row.k for row in rows], [row.absolute.mean for row in rows]
        noise = None if name == "random" else np.nan_to_num([row.absolute.std for row in rows])
        axes.errorbar(
            x, y, noise, color=color, linestyle=line, marker="o", markersize=3.5, capsize=2, label=name
        )
    for name, color, line in (("oracle", "#1d2733", "--"), ("model-tuning", "#c44e52", "-.")):
        if row := analysis.row(name):
            axes.axhline(row.absolute.mean, color=color, linestyle=line, label=name)
    axes.axhline(0, color="#9aa5b1", linewidth=0.8)
    axes.set(xlabel="k, sources tried or combined", ylabel="change of the average score (points)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half source
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    # Beside the curves: horizontal lines cross all of the space between them.
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return drawing
