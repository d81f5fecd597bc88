"""Jobs side by side until a time is over: their commands, what an interrupt leaves, and jobs that do not exist."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from experiments.gpu.cells import EXPERIMENTS, commands_of, main, run

# Each says in a file, by its process, that it is ready for the signal.
STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1], 'stubborn').write_text(str(os.getpid()))
time.sleep(600)
"""
KEEPS = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    pathlib.Path(sys.argv[1], 'keeps').write_text(str(os.getpid()))
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1], 'kept').write_text('kept')
    sys.exit(130)
"""


class Clock:
    """The time of `run`, which passes when its processes have come so far and not before."""

    sleep = staticmethod(time.sleep)

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder, self._log = folder, logs / "00.log"

    def monotonic(self) -> float:
        """0 until all are ready; then the seconds that `run` was given; then the end of its grace."""
        ready = [self._folder / name for name in ("keeps", "stubborn")]
        if not all(path.exists() and path.read_text() for path in ready):
            return 0
        if not self._log.exists() or self._log.read_text() != "done\n":
            return 0
        return 3.0 if psutil.pid_exists(int(ready[0].read_text())) else 9.0


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
    monkeypatch.setattr("experiments.gpu.cells.time", Clock(tmp_path, tmp_path / "logs"))
    programs = [["-c", "print('done')"], ["-c", KEEPS, str(tmp_path)], ["-c", STUBBORN, str(tmp_path)]]
    codes = run([[sys.executable, *one] for one in programs], 3.0, "rows", tmp_path / "logs")
    assert codes == [0, 130, -signal.SIGKILL]
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "logs" / "00.log").read_text() == "done\n"


def test_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "sweep", ("no_such_module",))
    code = main(["sweep:1", "--minutes", "1", "--data-dir", "rows", "--logs", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 1 and "experiments.no_such_module" in told and "No module named" in told
