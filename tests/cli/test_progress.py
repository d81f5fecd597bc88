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
