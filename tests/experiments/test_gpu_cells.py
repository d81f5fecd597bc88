"""Jobs side by side until a time is over: their commands, what an interrupt leaves, and jobs that do not exist."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from experiments.gpu.cells import EXPERIMENTS, commands_of, main, run

STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
KEEPS = """
import pathlib, sys, time
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text('kept')
    sys.exit(130)
"""


def test_every_job_names_a_module_and_its_processes(tmp_path: Path) -> None:
    for name in EXPERIMENTS:
        first, second = commands_of(f"{name}:2", "rows", tmp_path)
        assert first == second and first[1] == "-m" and "rows" in first and str(tmp_path) in first[-1]
    (study,) = commands_of("study=docs/studies/some:6", "rows", None)
    assert study[2:6] == ["spoton", "study", "run", "docs/studies/some"] and study[-2:] == ["--workers", "6"]


@pytest.mark.parametrize("job", ["sweep", "sweep:0", "sweep:many", "dance:2"])
def test_other_jobs_are_refused(job: str) -> None:
    with pytest.raises(SystemExit, match="job"):
        commands_of(job, "rows", None)


def test_what_is_left_is_interrupted_and_then_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.gpu.cells.GRACE", 6.0)
    programs = [["-c", "print('done')"], ["-c", KEEPS, str(tmp_path / "kept")], ["-c", STUBBORN]]
    began = time.monotonic()
    codes = run([[sys.executable, *one] for one in programs], 3.0, "rows", tmp_path / "logs")
    assert codes == [0, 130, -signal.SIGKILL] and time.monotonic() - began < 30
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "logs" / "00.log").read_text() == "done\n"


def test_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "sweep", ("no_such_module",))
    code = main(["sweep:1", "--minutes", "1", "--data-dir", "rows", "--logs", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 1 and "experiments.no_such_module" in told and "No module named" in told
