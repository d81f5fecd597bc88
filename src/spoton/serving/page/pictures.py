"""The pages' figures, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup, escape
from torch import Tensor

from spoton.parsing import parse_json
from spoton.prompts.card import Card
from spoton.serving.roster import ServedPrompt

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555")
_WIDTH, _HEIGHT, _MARGIN = 860, 380, 40
# The names of more prompts would overlap; they are shown when the pointer is on a point.
_MOST_NAMES = 40
_LINE = 15


def similarity_map(prompts: Sequence[ServedPrompt]) -> Markup | None:
    """Returns a map that places prompts with similar mean tokens near each other; None for fewer than three prompts.

    Args:
        prompts: The prompts.
    """
    if len(prompts) < 3:
        return None
    points = _plane(torch.stack([prompt.direction for prompt in prompts]))
    families = list(dict.fromkeys(prompt.card.family or "no family" for prompt in prompts))
    color = {family: _COLORS[min(n, len(_COLORS) - 1)] for n, family in enumerate(families)}
    names = len(prompts) <= _MOST_NAMES
    taken: list[tuple[float, float, float]] = []
    parts = []
    order = sorted(range(len(prompts)), key=lambda row: float(points[row, 1]))
    for row in order:
        prompt, (x, y) = prompts[row], points[row].tolist()
        fill = color[prompt.card.family or "no family"]
        shape = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="6" fill="{}"/>').format(x, y, fill)
        text = Markup("")
        if names:
            left = x > _WIDTH * 0.7
            place = _free_place(x, y, len(prompt.name) * 7.0, left, taken)
            text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                x - 10 if left else x + 10, place, "end" if left else "start", prompt.name
            )
        parts.append(
            Markup('<a href="/prompts/{}">{}{}<title>{} ({})</title></a>').format(
                prompt.name, shape, text, prompt.name, prompt.card.family or "no family"
            )
        )
    legend = Markup("").join(
        Markup(
            '<li><svg width="12" height="12"><circle cx="6" cy="6" r="6" fill="{}"/></svg> {}</li>'
        ).format(color[family], family)
        for family in families
    )
    return Markup(
        '<svg class="map" viewBox="0 0 {} {}" role="img" aria-label="Map of the prompts">{}</svg>'
        '<ul class="legend">{}</ul>'
    ).format(_WIDTH, _HEIGHT, Markup("").join(parts), legend)


def _plane(directions: Tensor) -> Tensor:
    """Returns `[N, 2]` points of the figure: the two principal components of `[N, D]` directions."""
    centred = directions - directions.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    plane = left[:, :2] * sizes[:2]
    lowest, highest = plane.amin(dim=0), plane.amax(dim=0)
    box = torch.tensor([_WIDTH - 2.0 * _MARGIN, _HEIGHT - 2.0 * _MARGIN])
    scaled: Tensor = (plane - lowest) / (highest - lowest).clamp(min=1e-12) * box + _MARGIN
    return scaled


def _free_place(
    x: float, y: float, width: float, left: bool, taken: list[tuple[float, float, float]]
) -> float:
    """Returns where a name fits without covering one above it, and notes the place as taken."""
    start, stop = (x - 10 - width, x - 10) if left else (x + 10, x + 10 + width)
    place = y + 4
    for other_start, other_stop, other in sorted(taken, key=lambda one: one[2]):
        if other_start < stop and start < other_stop and abs(place - other) < _LINE:
            place = other + _LINE
    taken.append((start, stop, place))
    return place


def learning_curve(record: Path, card: Card) -> Markup | None:
    """Returns loss and validation score over steps, from the run's record; None without a record.

    Args:
        record: Path of the record, which may be missing.
        card: The prompt's card; the record must be of the same run.
    """
    try:
        document: dict[str, Any] = parse_json(record.read_text())
        history = document["history"]
        same = document["data_hash"] == card.data_hash and document["recipe"] == card.recipe
        losses = [(float(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry]
        scores = [
            (float(entry["step"]), float(entry["validation"])) for entry in history if "validation" in entry
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not same or len(losses) < 2:
        return None
    steps = max(step for step, _ in losses)
    lines = [_line(losses, steps, "loss")]
    if scores:
        lines.append(_line(scores, steps, "score"))
    best = max((score for _, score in scores), default=None)
    words = (
        "training loss" if best is None else f"training loss and validation {card.metric} (best {best:.1f})"
    )
    return Markup(
        '<svg class="curve" viewBox="0 0 640 220" role="img" aria-label="Learning curve">{}</svg>'
        "<p class=note>{} over {:.0f} steps; each from its lowest to its highest value.</p>"
    ).format(Markup("").join(lines), words[0].upper() + words[1:], steps)


def _line(points: Sequence[tuple[float, float]], steps: float, kind: str) -> Markup:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    places = " ".join(
        f"{10 + 620 * step / steps:.1f},{205 - 190 * (value - low) / max(high - low, 1e-9):.1f}"
        for step, value in points
    )
    return Markup('<polyline class="{}" points="{}"/>').format(kind, escape(places))
