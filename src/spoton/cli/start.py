"""Where the installed command starts. Interrupts and threads are set up before anything else is imported."""

from __future__ import annotations

import sys

from spoton.cli.signals import exit_code, ignore_interrupts, interrupt_on_signals
from spoton.cli.threads import share_busy_cores


def main() -> None:
    """Entry point of the installed command."""
    try:
        interrupt_on_signals()
        share_busy_cores()
        from spoton.cli.app import app
        from spoton.cli.output import use_real_streams

        use_real_streams()
        app()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        if "--json" in sys.argv:
            sys.stdout.write('{"error": "Interrupted.", "kind": "Interrupted", "code": "E-INTERRUPTED"}\n')
        sys.exit(exit_code())
    finally:
        ignore_interrupts()
