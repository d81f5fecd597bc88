"""The interactive figures, as the plain data and layout that plotly.js takes.

Task names go in as category labels, in which plotly.js would read markup; they are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TypeAlias

import numpy as np

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.gain import Change
from spoton.study.analysis.similarities import TaskSimilarities
from spoton.study.report.parts import DROPPED, number, probability, spread
from spoton.study.results.scores import Array

PlotlyFigure: TypeAlias = dict[str, Any]

COLORS = (
    "#4c72b0",
    "#dd8452",
    "#55a868",
    "#c44e52",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#8c8c8c",
    "#ccb974",
    "#64b5cd",
)
RANDOM_COLOR = "#8c8c8c"
CLIP = 25  # the colour scale of SPoT's figure 3
GAIN_COLORS = ("#8c1d18", "#d6604d", "#f7c6b0", "#ffffff", "#b5d4ea", "#4393c3", "#0b3c73")
"""From loss to gain, white at zero; the same in the interactive figure and in the picture."""
_ROW, _COLUMN = 26, 64  # pixels
_FONT = {
    "family": "system-ui, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif",
    "size": 12,
    "color": "#1d2733",
}


def figures(analysis: Analysis) -> dict[str, PlotlyFigure]:
    """Every figure that the study has the numbers for, by name."""
    found = {"transfer": transfer_heatmap(analysis)}
    for metric, similarities in analysis.similarities.items():
        found[f"similarity-{metric}"] = similarity_heatmap(similarities)
    if (best := analysis.metric) is not None:
        if any(math.isfinite(one.pearson) for one in analysis.correlations.get(best, ())):
            found["scatter"] = scatter(analysis)
        found["retrieval"] = retrieval_curves(analysis)
    return found


def source_order(analysis: Analysis) -> list[str]:
    """Sources by mean error reduction, the best first; those without any last."""
    ranked = [source for source, *_ in analysis.by_mean_reduction()]
    return ranked + [source for source in analysis.results.sources if source not in ranked]


def transfer_heatmap(analysis: Analysis) -> PlotlyFigure:
    """Relative error reduction of sources (rows) and targets; as figure 3 of SPoT."""
    sources, targets = source_order(analysis), list(analysis.results.targets)
    z, text, hover = [], [], []
    for source in sources:
        changes = [analysis.change(source, target) for target in targets]
        z.append([_finite(one.error_reduction) if one else None for one in changes])
        text.append([
            number(one.error_reduction, sign=True) + mark(analysis, one) if one else "" for one in changes
        ])  # fmt: skip
        hover.append([
            f"{escape(source)} → {escape(target)}<br>score {spread(one.score)}<br>from scratch {spread(one.scratch)}"
            f"<br>gain {number(one.gain, sign=True)}: {one.outcome}" if one else f"{escape(source)} → {escape(target)}"
            for one, target in zip(changes, targets, strict=True)
        ])  # fmt: skip
    heat = {
        "type": "heatmap", "z": z, "x": _names(targets), "y": _names(sources), "text": text,
        "texttemplate": "%{text}", "textfont": {"size": 11}, "hovertext": hover,
        "hovertemplate": "%{hovertext}<br>error reduction %{z:+.1f} %<extra></extra>",
        "zmin": -CLIP, "zmid": 0, "zmax": CLIP, "xgap": 1, "ygap": 1, "hoverongaps": False,
        "colorscale": [[i / (len(GAIN_COLORS) - 1), color] for i, color in enumerate(GAIN_COLORS)],
        "colorbar": _colorbar("relative error reduction (%)") | {
            "tickvals": [-CLIP, -10, 0, 10, CLIP], "outlinewidth": 0.5,
            "ticktext": [f"\N{LESS-THAN OR EQUAL TO} \N{MINUS SIGN}{CLIP}", "\N{MINUS SIGN}10", "0", "+10",
                         f"\N{GREATER-THAN OR EQUAL TO} +{CLIP}"],
        },
    }  # fmt: skip
    layout = _layout(height=110 + max(_ROW * len(sources), 170))
    layout["xaxis"] = _categories(targets) | {"side": "top", "title": {"text": "target"}}
    layout["yaxis"] = _categories(sources) | {
        "autorange": "reversed",
        "title": {"text": "source", "standoff": 8},
    }
    layout["width"] = min(1180, 290 + _COLUMN * max(6, len(targets)))
    return {"data": [heat], "layout": layout}


def mark(analysis: Analysis, change: Change) -> str:
    """What stands behind the number of a pair: * beyond noise, and whether a seed was dropped by halving."""
    dropped = any(place[:2] == (change.source, change.target) for place in analysis.results.dropped)
    return ("*" if change.beyond_noise else "") + (DROPPED if dropped else "")


def similarity_heatmap(found: TaskSimilarities) -> PlotlyFigure:
    """Similarity of all tasks, similar ones beside each other; as figure 4 of SPoT."""
    tasks = [found.tasks[place] for place in found.order]
    z = [[_finite(found.values[a, b]) for b in found.order] for a in found.order]
    low, high = similarity_range(found.values)
    heat = {
        "type": "heatmap", "z": z, "x": _names(tasks), "y": _names(tasks), "zmin": low, "zmax": high,
        "colorscale": "Viridis", "xgap": 1, "ygap": 1,
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>",
        "colorbar": _colorbar(f"similarity ({found.metric})"),
    }  # fmt: skip
    side = max(320, 22 * len(tasks))
    layout = _layout(height=side + 150)
    layout["width"] = side + 230
    layout["xaxis"] = _categories(tasks) | {"tickangle": -60, "constrain": "domain"}
    layout["yaxis"] = _categories(tasks) | {
        "autorange": "reversed",
        "scaleanchor": "x",
        "constrain": "domain",
    }
    return {"data": [heat], "layout": layout}


def similarity_range(values: Array) -> tuple[float, float]:
    """The colour scale: what different tasks reach, since a task with itself would wash all else out."""
    different = values[~np.eye(len(values), dtype=bool)]
    different = different[np.isfinite(different)]
    return (float(different.min()), float(different.max())) if different.size else (0.0, 1.0)


def scatter(analysis: Analysis) -> PlotlyFigure:
    """A panel for each target: similarity and error reduction of every source prompt; as figure 5 of SPoT."""
    assert analysis.metric is not None
    found = [one for one in analysis.correlations[analysis.metric] if one.n]
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    height = 80 + 265 * rows
    layout = _layout(height=height) | {"annotations": []}
    groups = {group: COLORS[i % len(COLORS)] for i, group in enumerate(source_groups(analysis))}
    data = []
    for place, one in enumerate(found):
        axis = "" if place == 0 else str(place + 1)
        column, row = place % columns, place // columns
        left, top = column / columns, 1 - row / rows
        gap_x, gap_y = 0.055, 95 / (265 * rows)
        layout[f"xaxis{axis}"] = _plain() | {
            "domain": [left + (gap_x if column else 0.045), left + 1 / columns - 0.012], "anchor": f"y{axis}",
            "nticks": 5, "title": {"text": "similarity", "standoff": 4} if place + columns >= len(found) else {},
        }  # fmt: skip
        layout[f"yaxis{axis}"] = _plain() | {
            "domain": [top - 1 / rows + gap_y * 0.45, top - gap_y * 0.55], "anchor": f"x{axis}", "zeroline": True,
            "nticks": 6, "title": {"text": "error reduction %", "standoff": 4} if column == 0 else {},
        }  # fmt: skip
        low, high = one.interval
        bounds = "" if math.isnan(low) else f" [{number(low, 2)}, {number(high, 2)}]"
        layout["annotations"].append({
            "text": f"<b>{escape(one.target)}</b><br>r = {number(one.pearson, 2)}{bounds}, "
            f"p = {probability(one.pearson_p)}", "align": "left",
            "x": left + (gap_x if column else 0.045), "y": top - gap_y * 0.5, "xref": "paper", "yref": "paper",
            "xanchor": "left", "yanchor": "bottom", "showarrow": False, "font": {"size": 12},
        })  # fmt: skip
        for group, color in groups.items():
            points = [point for point in one.points if group_of(analysis, point[0]) == group]
            if points:
                data.append({
                    "type": "scatter", "mode": "markers", "x": [p[2] for p in points], "y": [p[3] for p in points],
                    "text": [escape(f"{p[0]}, seed {p[1]}" if p[1] is not None else p[0]) for p in points],
                    "hovertemplate": "%{text}<br>similarity %{x:.3f}<br>error reduction %{y:+.1f} %<extra></extra>",
                    "marker": {"color": color, "size": 7, "opacity": 0.8}, "xaxis": f"x{axis}", "yaxis": f"y{axis}",
                    "name": escape(group), "legendgroup": group, "showlegend": False,
                })  # fmt: skip
    for group, color in groups.items():  # one entry a group, whichever panels it is in
        data.append({
            "type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": escape(group), "legendgroup": group,
            "marker": {"color": color, "size": 7}, "showlegend": True,
        })  # fmt: skip
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"}
    return {"data": data, "layout": layout}


def retrieval_curves(analysis: Analysis) -> PlotlyFigure:
    """Change of the score against k, for every similarity, chance, other methods and the oracle."""
    data: list[dict[str, Any]] = []
    colors = iter(COLORS)
    for name, rows in curves(analysis).items():
        color = RANDOM_COLOR if name == "random" else next(colors)
        lines = len(rows) > 1 and name.startswith(("best-of-top-k", "random"))
        data.append({
            "type": "scatter", "name": escape(name),
            "x": [row.k for row in rows], "y": [row.absolute.mean for row in rows],
            "mode": "lines+markers" if lines else "markers", "marker": {"color": color, "size": 6 if lines else 10},
            "line": {"color": color, "dash": "dot" if name == "random" else "solid"},
            "error_y": {
                "type": "data", "array": [_finite(row.absolute.std) for row in rows], "thickness": 1, "width": 3,
                "visible": name != "random",
            },
            "text": [f"kept {row.kept:.0%}" if math.isfinite(row.kept) else "" for row in rows],
            "hovertemplate": "k = %{x}: %{y:+.2f} points<br>%{text}<extra>%{fullData.name}</extra>",
        })  # fmt: skip
    largest = max((row.k or 1 for row in analysis.rows), default=1)
    for name, color, dash in (("oracle", "#1d2733", "dash"), ("model-tuning", "#c44e52", "longdashdot")):
        if row := analysis.row(name):
            data.append({
                "type": "scatter", "mode": "lines", "name": name, "x": [1, largest], "y": [row.absolute.mean] * 2,
                "line": {"color": color, "dash": dash}, "hovertemplate": "%{y:+.2f} points<extra>" + name + "</extra>",
            })  # fmt: skip
    layout = _layout(height=430) | {
        "xaxis": _plain() | {"title": {"text": "k, sources tried or combined"}, "dtick": max(1, largest // 12)},
        "yaxis": _plain() | {"title": {"text": "change of the average score (points)"}, "zeroline": True},
        "legend": {"orientation": "h", "x": 0, "y": -0.2},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def curves(analysis: Analysis) -> dict[str, list[Any]]:
    """Rows that have a k, by what to call their curve."""
    found: dict[str, list[Any]] = {}
    for row in analysis.rows:
        if row.k is not None and math.isfinite(row.absolute.mean):
            found.setdefault(f"{row.method}, {row.metric}" if row.metric else row.method, []).append(row)
    return {name: sorted(rows, key=lambda row: row.k) for name, rows in found.items()}


def source_groups(analysis: Analysis) -> list[str]:
    """What colours mean: families of sources, or sources where no family is known."""
    return list(dict.fromkeys(group_of(analysis, source) for source in analysis.results.sources))


def group_of(analysis: Analysis, source: str) -> str:
    """The family of a source, or its name if it has none."""
    return analysis.results.families.get(source) or source


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height, "font": _FONT, "margin": {"l": 60, "r": 20, "t": 40, "b": 50}, "paper_bgcolor": "white",
        "plot_bgcolor": "white", "hoverlabel": {"align": "left"},
    }  # fmt: skip


def _colorbar(title: str) -> dict[str, Any]:
    return {"title": {"text": title, "side": "right", "font": {"size": 12}}, "thickness": 14, "len": 1.0}


def _plain() -> dict[str, Any]:
    return {
        "gridcolor": "#e8ecf0", "zerolinecolor": "#9aa5b1", "zeroline": False, "automargin": True,
        "linecolor": "#9aa5b1", "showline": True, "ticks": "outside", "ticklen": 3,
    }  # fmt: skip


def _categories(names: Sequence[str]) -> dict[str, Any]:
    """An axis with every name on it; "1" and "2" stay names."""
    ticks = {
        "tickmode": "array",
        "tickvals": _names(names),
        "ticks": "outside",
        "ticklen": 5,
        "tickcolor": "white",
    }
    return {"type": "category", "automargin": True, "showgrid": False, **ticks}


def _names(names: Iterable[str]) -> list[str]:
    return [escape(name) for name in names]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
