"""The learning curve: what is taken out of a history, how it is smoothed, and that a picture comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from spoton import plots
from spoton.errors import SpotonError
from spoton.plots import draw_curve, evaluations, figure, losses, save_figure, smooth

HISTORY = [
    {"step": 0.0, "validation": 40.0, "validation_loss": 1.5},
    {"step": 1.0, "loss": 3.0},
    {"step": 2.0, "loss": 1.0},
    {"step": 2.0, "validation": 60.0},
]


def test_a_history_holds_losses_and_looks() -> None:
    assert losses(HISTORY) == ([1, 2], [3, 1])
    assert evaluations(HISTORY) == ([0, 2], [40, 60])
    assert losses([]) == evaluations([]) == ([], [])


def test_smoothing_is_the_mean_of_the_last_five() -> None:
    assert smooth([1, 3]) == [1, 2]
    assert smooth([7, 1, 1, 1, 1, 1, 11]) == pytest.approx([7, 4, 3, 2.5, 2.2, 1, 3])
    assert smooth([]) == []


def test_the_picture_is_a_png_of_sensible_size(tmp_path: Path) -> None:
    path = draw_curve(HISTORY, "accuracy", "reviews", tmp_path / "new" / "p.png")
    assert path == tmp_path / "new" / "p.png"
    height, width = imread(path).shape[:2]
    assert 400 < width < 1200 and 300 < height < width
    assert 3_000 < path.stat().st_size < 300_000
    assert list(path.parent.iterdir()) == [path]


def test_it_shows_losses_their_mean_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []

    def keep(panels: int) -> Any:
        made = figure(panels)
        kept.append(made[0])
        return made

    monkeypatch.setattr(plots, "figure", keep)
    draw_curve(HISTORY, "macro_f1", "reviews", tmp_path / "p.png")
    left, right = kept[0].axes
    assert left.get_title() == "reviews" and right.get_ylabel() == "validation macro_f1 (%)"
    raw, mean = ([float(y) for y in line.get_ydata()] for line in left.get_lines())
    assert raw == [3, 1] and mean == [3, 2]
    (scores,) = right.get_lines()
    assert [list(map(float, scores.get_xdata())), list(map(float, scores.get_ydata()))] == [[0, 2], [40, 60]]


@pytest.mark.parametrize("task", ["prices in $_$", "under_score", "größer", r"back\slash"])
def test_any_name_of_a_task_can_be_a_title(tmp_path: Path, task: str) -> None:
    assert draw_curve(HISTORY, "accuracy", task, tmp_path / "p.png").is_file()


def test_a_long_name_does_not_run_out_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing, axes = figure(1)
    monkeypatch.setattr(plots, "figure", lambda _: (drawing, axes))
    draw_curve(
        HISTORY, "accuracy", "support_tickets_by_team_and_by_urgency_of_the_year_2024", tmp_path / "p.png"
    )
    title = axes[0].title.get_window_extent()
    assert title.x0 > 0 and title.x1 < drawing.bbox.width
    assert axes[0].get_title() == "support_tickets_by_team_…he_year_2024"


def test_drawing_needs_no_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    monkeypatch.delenv("DISPLAY", raising=False)
    drawing, axes = figure(3)
    assert len(axes) == 3
    assert save_figure(drawing, tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpotonError, match=r"file/p\.png"):
        draw_curve(HISTORY, "accuracy", "reviews", tmp_path / "file" / "p.png")
