"""The picture of a comparison: that it is one, and that it shows both arms where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from spoton import plots
from spoton.plots import draw_arms, figure


def history(steps: int, *, first_look: int = 2, loss: float = 2.0) -> list[dict[str, float]]:
    """Falling losses, and a look at every second step that finds ten times the step."""
    looks = [{"step": float(step), "validation": 10.0 * step} for step in range(first_look, steps + 1, 2)]
    return [{"step": float(step), "loss": loss / step} for step in range(1, steps + 1)] + looks


def draw(path: Path, scratch: list[Any], transfer: list[Any], **changes: Any) -> Path:
    facts = {
        "probes": [4] * len(transfer),
        "metric": "accuracy",
        "task": "reviews",
        "zero_shot": 50.0,
    } | changes
    return draw_arms(scratch, transfer, path=path, **facts)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, to look into."""
    kept: list[Figure] = []

    def keep(panels: int) -> Any:
        made = figure(panels)
        kept.append(made[0])
        return made

    monkeypatch.setattr(plots, "figure", keep)
    return kept


def lines(drawing: Figure, panel: int) -> dict[str, list[list[float]]]:
    """The thick lines of a panel by their label, x and y."""
    return {
        str(line.get_label()): [list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))]
        for line in drawing.axes[panel].get_lines()
        if not str(line.get_label()).startswith("_")
    }


def test_the_picture_is_a_png_of_two_panels(tmp_path: Path) -> None:
    path = draw(tmp_path / "new" / "p.png", [history(10)], [history(6)])
    assert path == tmp_path / "new" / "p.png"
    height, width = imread(path).shape[:2]
    assert 800 < width < 2000 and 300 < height < 1000 and width > 2 * height
    assert 5_000 < path.stat().st_size < 500_000
    assert imread(path)[..., :3].std() > 0.01  # something is drawn


def test_an_existing_picture_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"old")
    draw(tmp_path / "p.png", [history(10)], [history(6)])
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [tmp_path / "p.png"]


def test_the_curve_of_transfer_begins_where_its_ranking_ended(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "p.png", [history(10)], [history(6, first_look=0)], probes=[4])
    scores = lines(drawn[0], 0)
    assert scores["from scratch"] == [[2, 4, 6, 8, 10], [20, 40, 60, 80, 100]]
    assert scores["transfer (4 steps for the ranking)"] == [[4, 6, 8, 10], [0, 20, 40, 60]]


def test_every_seed_begins_after_its_own_ranking(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "p.png", [history(10)] * 2, [history(6, first_look=0)] * 2, probes=[4, 6])
    scores = lines(drawn[0], 0)
    assert scores["transfer (4 to 6 steps for the ranking)"] == [[5, 7, 9, 11], [0, 20, 40, 60]]


def test_thick_lines_are_means_of_seeds_and_thin_ones_the_seeds(tmp_path: Path, drawn: list[Figure]) -> None:
    other = [entry | {"validation": 0.0} if "validation" in entry else entry for entry in history(4)]
    draw(tmp_path / "p.png", [history(4), other], [history(4)])
    assert lines(drawn[0], 0)["from scratch"] == [[2, 4], [10, 20]]
    assert len(drawn[0].axes[0].get_lines()) == (2 + 1) + (1 + 1) + 1  # seeds and mean of each arm, zero-shot


def test_a_seed_that_stopped_early_shortens_the_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "p.png", [history(4), history(10)], [history(4)])
    assert lines(drawn[0], 0)["from scratch"][0] == [2, 4]


def test_the_bare_model_is_a_line_where_it_was_scored(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "p.png", [history(4)], [history(4)], zero_shot=33.0)
    draw(tmp_path / "q.png", [history(4)], [history(4)], zero_shot=None)
    with_it, without = (lines(drawing, 0) for drawing in drawn)
    assert with_it["no prompt (zero-shot)"][1] == [33, 33]
    assert "no prompt (zero-shot)" not in without


def test_axes_say_what_they_show(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "p.png", [history(4)], [history(4)], metric="macro_f1", task="news")
    left, right = drawn[0].axes
    assert left.get_ylabel() == "validation macro_f1 (%)" and "news" in left.get_title()
    assert "loss" in right.get_ylabel() and "steps" in right.get_xlabel()


def test_a_run_of_one_step_can_be_drawn(tmp_path: Path) -> None:
    """Its first look is never reached: only a loss."""
    assert draw(tmp_path / "p.png", [history(1)], [history(1)]).is_file()


@pytest.mark.parametrize("task", ["prices in $_$", "under_score", "größer", r"back\slash", "50%"])
def test_any_name_of_a_task_can_be_a_title(tmp_path: Path, task: str) -> None:
    assert draw(tmp_path / "p.png", [history(4)], [history(4)], task=task).is_file()
