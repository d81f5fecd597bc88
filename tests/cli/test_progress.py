"""Progress goes to stderr, as bars on a terminal and as lines elsewhere; stdout stays the result's."""

import io
import math
import sys

import pytest
from rich.console import Console

from spoton.cli import progress
from spoton.events import Progress


def steps(phase: str = "tuning") -> list[Progress]:
    return [
        Progress(phase, done, 40, "step", 0.5, "accuracy", 60.0 + done // 20, 61.0, 1234.5, 40.0 - done)
        for done in range(1, 41)
    ]


def test_without_a_terminal_there_is_a_line_per_news(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.live_progress() as on_event:
        for event in [*steps("probe"), *steps("transfer")]:
            on_event(event)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[0] for line in lines] == ["probe"] * 3 + ["transfer"] * 3
    assert lines[1] == (
        "probe  step 20/40  loss 0.500  validation accuracy 61.0 (best 61.0)  1,234 tokens/s  0:00:20 left"
    )
    assert "left" not in lines[2]  # it is done


def test_on_a_terminal_a_finished_phase_leaves_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=160, highlight=False)
    monkeypatch.setattr(progress, "stderr", lambda: terminal)
    with progress.live_progress() as on_event:
        for event in [*steps("probe"), *steps("transfer")[:5]]:
            on_event(event)
    assert "probe  step 40/40  loss 0.500" in screen.getvalue()
    assert "transfer" in screen.getvalue()


def test_an_unknown_remaining_time_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.live_progress() as on_event:
        on_event(Progress("evaluating", 1, 2, "example", seconds_left=math.nan))
    assert capsys.readouterr().err == "evaluating  example 1/2\n"


def test_what_libraries_print_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.live_progress():
        sys.stdout.write("a library's chatter\n")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "a library's chatter\n")


@pytest.mark.parametrize(
    "runs, seconds_a_step, told",
    [(1, 29.0, False), (1, 31.0, True), (6, 4.0, False), (6, 6.0, True), (0, 1e3, False)],
)
def test_long_runs_are_announced_once_with_a_shorter_budget(
    capsys: pytest.CaptureFixture[str], runs: int, seconds_a_step: float, told: bool
) -> None:
    with progress.live_progress(runs) as on_event:
        for done in range(1, 41):
            on_event(Progress("tuning", done, 40, "step", seconds_left=seconds_a_step * (40 - done)))
    expected = f"40 steps take about {runs * 40 * seconds_a_step / 60:.0f} minutes"
    err = " ".join(capsys.readouterr().err.split())
    assert (err.count(expected), err.count("`--minutes 10`")) == ((1, 1) if told else (0, 0))


def test_only_steps_that_are_left_are_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.live_progress(runs=2) as on_event:
        on_event(Progress("zero-shot", 20, 40, "example", seconds_left=1e6))
        on_event(Progress("tuning", 40, 40, "step", seconds_left=0.0))  # resumed at its end
        assert "--minutes" not in capsys.readouterr().err
        on_event(Progress("transfer", 20, 40, "step", seconds_left=1e6))
    assert "--minutes" in capsys.readouterr().err
