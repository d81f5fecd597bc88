"""The picture of a comparison: learning curves of both arms over the budget they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spoton.tuning.curve import COLORS, figure, log_losses, looks, losses, save_figure, smooth

History = Sequence[dict[str, float]]


def draw_arms(
    scratch: Sequence[History],
    transfer: Sequence[History],
    *,
    probe: int,
    metric: str,
    task: str,
    zero_shot: float | None,
    path: Path,
) -> Path:
    """Draws validation score and training loss of both arms; thin lines are seeds, thick ones their mean.

    Transfer's curve begins where its probe ended, since those steps count.

    Args:
        scratch: One history a seed, prompt tuning from scratch.
        transfer: One history a seed, the best candidate.
        probe: Steps of the probe.
        metric: Name of the main metric.
        task: Name of the task.
        zero_shot: Validation score of the bare model, drawn as a line.
        path: Where to write the PNG.
    """
    drawing, (left, right) = figure(2)
    for histories, color, words, shift in (
        (scratch, COLORS[0], "from scratch", 0),
        (transfer, COLORS[1], f"transfer (after a {probe}-step probe)", probe),
    ):
        _mean_line(left, [looks(history) for history in histories], color, words, shift)
        curves = [(steps, smooth(values)) for steps, values in map(losses, histories)]
        _mean_line(right, curves, color, words, shift)
    if zero_shot is not None:
        left.axhline(zero_shot, color="0.6", linestyle=":", label="no prompt (zero-shot)")
    left.set(xlabel="optimizer steps, probe included", ylabel=f"validation {metric}", title=f"{task}: score")
    right.set(xlabel="optimizer steps, probe included", ylabel="training loss (nats a token)", title="loss")
    log_losses(right)
    left.legend(frameon=False, fontsize=8)
    return save_figure(drawing, path)


def _mean_line(axes, curves, color: str, words: str, shift: int) -> None:  # type: ignore[no-untyped-def]
    """Thin lines for seeds and a thick one for their mean (``no-untyped-def``: matplotlib's axes)."""
    curves = [(np.asarray(steps) + shift, np.asarray(values)) for steps, values in curves if len(steps)]
    for steps, values in curves:
        axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
    shortest = min((len(steps) for steps, _ in curves), default=0)
    if shortest:
        mean = np.mean([values[:shortest] for _, values in curves], axis=0)
        marker = "o" if shortest < 20 else ""
        axes.plot(curves[0][0][:shortest], mean, color=color, linewidth=2, marker=marker, label=words)
