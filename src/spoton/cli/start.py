"""Where the installed command starts. It handles interrupts before it imports anything else."""

from __future__ import annotations

import sys

from spoton.cli.signals import exit_code, ignore_interrupts, interrupt_on_signals


def main() -> None:
    """Entry point of the installed command."""
    try:
        interrupt_on_signals()
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
