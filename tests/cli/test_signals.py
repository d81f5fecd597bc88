"""Signals before and between the work: during imports, and while the command line is read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.testing import CliRunner

from spoton.cli.app import app
from spoton.cli.start import main

NATIVE = """
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(0.3)  # sent again meanwhile, twice and more
print("whole", flush=True)
"""
IMPORTER = """
import time
from spoton.cli.signals import exit_code, interrupt_on_signals
interrupt_on_signals()
try:
    import native
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", exit_code())
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_import_ends_before_a_signal_counts(name: str, tmp_path: Path) -> None:
    """torch aborts the process when an exception meets its import."""
    (tmp_path / "native.py").write_text(NATIVE.format(name=name))
    (tmp_path / "importer.py").write_text(IMPORTER)
    done = subprocess.run(
        [sys.executable, tmp_path / "importer.py"], capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.stdout.split() == ["whole", "interrupted", str(128 + signal.Signals[name])], done.stderr


def test_what_is_imported_before_signals_are_watched_is_little() -> None:
    """Ctrl-C before that ends in Python's own traceback."""
    script = (
        "import sys; before = set(sys.modules); import spoton.cli.start;"
        "print(*sorted(set(sys.modules) - before - {'signal', 'threading', '_weakrefset'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {name.partition(".")[0] for name in done.stdout.split()} & {"email", "pathlib", "typer", "json"}
    assert not heavy, done.stdout


def test_an_interrupt_while_the_command_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperGroup, "parse_args", interrupted)
    ended = CliRunner().invoke(app, ["tasks", "list", "--json"])
    assert ended.exit_code == 130
    assert "Interrupted." in ended.stderr and '"code": "E-INTERRUPTED"' in ended.stdout


def test_an_interrupt_before_there_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spoton.cli.start.interrupt_on_signals", interrupted)
    monkeypatch.setattr("spoton.cli.start.ignore_interrupts", lambda: None)
    monkeypatch.setattr(sys, "argv", ["spoton", "tasks", "list", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (130, "Interrupted.\n")
    assert json.loads(said.out)["code"] == "E-INTERRUPTED"
