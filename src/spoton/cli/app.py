"""The `spoton` command: the tree of commands, without what they do."""

from typing import Annotated

import typer

import spoton
from spoton.cli import (
    adapt,
    doctor,
    evaluate,
    exchange,
    library,
    models,
    predict,
    retrieve,
    serve,
    study,
    study_analysis,
    study_import,
    tasks,
    tune,
)
from spoton.cli.command import SpotonGroup
from spoton.cli.output import stdout

app = typer.Typer(
    cls=SpotonGroup,
    help="Adapt a frozen language model to a new task by reusing soft prompts learned on other tasks.",
    epilog="Environment: SPOTON_CACHE (downloads), SPOTON_LIBRARY (your own prompts), SPOTON_DATA_DIR (rows of tasks), "
    "SPOTON_DEBUG=1 (tracebacks, as --debug). Exit codes: 0: done; 2: something you can correct; 1: a bug in spoton, "
    "with a report file; 128 + n: ended by signal n. A message ends in a code such as E-DATA; the page Errors of the "
    "documentation explains it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verbs in (adapt, tune, evaluate, predict, retrieve, serve, doctor, exchange):
    app.add_typer(verbs.app)
study.app.add_typer(study_import.app)
study.app.add_typer(study_analysis.app)
for noun in (library, tasks, models, study):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])


def _show_version(asked: bool) -> None:
    if asked:
        stdout().print(f"spoton {spoton.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error; allowed anywhere.")
    ] = False,  # taken by SpotonGroup, and declared here for --help
) -> None:
    pass
