"""`spoton study`: the group that the commands of a study register in."""

import typer

app = typer.Typer(help="Measure which tasks help which: run, import, analyse, report.", no_args_is_help=True)
