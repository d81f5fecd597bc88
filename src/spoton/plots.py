"""Plots of learning curves: of one run, and of both arms of a comparison, in the style that all plots share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spoton.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#4c72b0", "#dd8452")
_SMOOTHING = 5
_LONGEST = 36  # letters of a name above a panel, which has no room for more


def figure(panels: int) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels side by side. Needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawing = Figure(figsize=(4.8 * panels, 3.4), layout="constrained", dpi=120)
    FigureCanvasAgg(drawing)
    axes = [drawing.add_subplot(1, panels, i + 1) for i in range(panels)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))  # half steps do not exist
        panel.title.set_parse_math(False)  # a dollar in a task's name does not start a formula
    return drawing, axes


def log_losses(axes: Axes) -> None:
    """Makes the loss axis logarithmic, with ticks as plain numbers."""
    from matplotlib.ticker import LogLocator, ScalarFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter("")


def save_figure(drawing: Figure, path: Path) -> Path:
    """Writes a figure as PNG, atomically."""
    data = io.BytesIO()
    drawing.savefig(data, format="png")
    atomic_write(path, data.getvalue())
    return path


def losses(history: Sequence[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Returns steps and training losses of a history."""
    entries = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    return [step for step, _ in entries], [loss for _, loss in entries]


def evaluations(history: Sequence[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Returns steps and validation scores of a history."""
    entries = [(entry["step"], entry["validation"]) for entry in history if "validation" in entry]
    return [step for step, _ in entries], [score for _, score in entries]


def smooth(values: Sequence[float]) -> list[float]:
    """Returns the mean of the last few values at each place."""
    return [float(np.mean(values[max(0, i - _SMOOTHING + 1) : i + 1])) for i in range(len(values))]


def shortened(name: str) -> str:
    """Returns a name that fits above a panel: of a long one, its beginning and its end."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST * 2 // 3]}…{name[-(_LONGEST // 3) :]}"


def draw_curve(history: Sequence[dict[str, float]], metric: str, task: str, path: Path) -> Path:
    """Draws the training loss and validation score of one run, and writes the PNG."""
    drawing, (axes,) = figure(1)
    steps, values = losses(history)
    axes.plot(steps, values, color=COLORS[0], alpha=0.3, linewidth=0.8)
    axes.plot(steps, smooth(values), color=COLORS[0], linewidth=2, label="training loss")
    axes.set(xlabel="optimizer steps", ylabel="training loss (nats a token)", title=shortened(task))
    log_losses(axes)
    score = axes.twinx()
    score.spines[["top"]].set_visible(False)
    score.plot(*evaluations(history), color=COLORS[1], linewidth=2, marker="o", label=f"validation {metric}")
    score.set_ylabel(f"validation {metric} (%)")
    lines = [*axes.get_lines()[1:], *score.get_lines()]
    # Outside: a legend inside would know the lines of one of the two axes only, and cover those of the other.
    names = [str(line.get_label()) for line in lines]
    drawing.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return save_figure(drawing, path)


History = Sequence[dict[str, float]]


def draw_arms(
    scratch: Sequence[History],
    transfer: Sequence[History],
    *,
    probes: Sequence[int],
    metric: str,
    task: str,
    zero_shot: float | None,
    path: Path,
) -> Path:
    """Draws the validation score and training loss of both arms: thin lines for seeds, thick ones for their means.

    A transfer curve begins where the ranking of sources ended, since its steps count.

    Args:
        scratch: One history per seed, for prompt tuning from scratch.
        transfer: One history per seed, for the best candidate, by the steps of the whole arm.
        probes: Steps that ranking the sources cost, one per seed.
        metric: Name of the main metric.
        task: Name of the task.
        zero_shot: Validation score of the bare model, drawn as a line.
        path: Where to write the PNG.
    """
    drawing, (left, right) = figure(2)
    low, high = min(probes), max(probes)
    ranking = f"{low}" if low == high else f"{low} to {high}"
    for histories, color, words, shifts in (
        (scratch, COLORS[0], "from scratch", [0] * len(scratch)),
        (transfer, COLORS[1], f"transfer ({ranking} steps for the ranking)", probes),
    ):
        _mean_line(left, [evaluations(history) for history in histories], color, words, shifts)
        curves = [(steps, smooth(values)) for steps, values in map(losses, histories)]
        _mean_line(right, curves, color, words, shifts)
    if zero_shot is not None:
        left.axhline(zero_shot, color="0.6", linestyle=":", label="no prompt (zero-shot)")
    left.set(
        xlabel="optimizer steps, ranking included",
        ylabel=f"validation {metric} (%)",
        title=f"{shortened(task)}: score",
    )
    right.set(xlabel="optimizer steps, ranking included", ylabel="training loss (nats a token)", title="loss")
    log_losses(right)
    left.legend(frameon=False, fontsize=8)
    return save_figure(drawing, path)


def _mean_line(axes, curves, color: str, words: str, shifts: Sequence[int]) -> None:  # type: ignore[no-untyped-def]
    """Draws thin lines for seeds and a thick one for their mean (`no-untyped-def`: matplotlib's axes)."""
    curves = [
        (np.asarray(steps) + shift, np.asarray(values))
        for (steps, values), shift in zip(curves, shifts, strict=True)
        if len(steps)
    ]
    for steps, values in curves:
        axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
    shortest = min((len(steps) for steps, _ in curves), default=0)
    if shortest:
        mean = np.mean([values[:shortest] for _, values in curves], axis=0)
        marker = "o" if shortest < 20 else ""
        middle = np.mean([steps[:shortest] for steps, _ in curves], axis=0)
        axes.plot(middle, mean, color=color, linewidth=2, marker=marker, label=words)
