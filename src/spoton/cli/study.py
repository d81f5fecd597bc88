"""`spoton study`: plan, run and watch a transfer study."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, facts, note, quiet_stdout, stdout, table
from spoton.cli.progress import live_progress

if TYPE_CHECKING:
    from spoton.study.run.scheduler import Status

app = typer.Typer(help="Run and analyse a transfer study: sources x targets x seeds.", no_args_is_help=True)

Folder = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help="The study's folder, with study.yaml in it; or its fsspec URL."),
]
FAILED = 1


@command(app, "spoton study new mine", "spoton study new paper --preset spot-paper")
def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create.")],
    preset: Annotated[str, typer.Option(help="quick or spot-paper.")] = "quick",
    json: Json = False,
) -> None:
    """Write a study file to start from."""
    from spoton.errors import StudyError
    from spoton.files import atomic_write
    from spoton.study.plan.study_file import preset_text
    from spoton.study.run.store import STUDY_FILE

    path = folder / STUDY_FILE
    text = preset_text(preset)
    try:
        atomic_write(path, text.encode(), overwrite=False)
    except FileExistsError as error:
        raise StudyError(f"{path} is there already. Choose another folder, or edit it.") from error
    emit({"study": str(path)}, f"{path} is written. Edit it, then: spoton study plan {folder}", as_json=json)


@command(app, "spoton study plan mine", "spoton study plan mine --json")
def plan(
    folder: Folder,
    workers: Annotated[int, typer.Option(min=1, help="Workers to predict the time for.")] = 1,
    json: Json = False,
) -> None:
    """List the cells, with the time and memory they will take here, and stop."""
    from spoton.study.plan.cost import Predictor
    from spoton.study.run.cell_runner import CellRunner
    from spoton.study.run.scheduler import status_of, write_plan

    with quiet_stdout():
        cell_runner = CellRunner(folder, on_message=note)
        cells = cell_runner.cells()
        predictor = Predictor(cell_runner.model, cell_runner.task)
    found = status_of(cell_runner.store, write_plan(cell_runner.store, cells, predictor.seconds))
    memory = max(map(predictor.memory, cells))
    document = found.to_json() | {
        "seconds": sum(cell.seconds for cell in found.cells), "seconds_left": found.seconds_left / workers,
        "workers": workers, "memory_bytes": memory, "names": [cell.name for cell in cells],
    }  # fmt: skip
    rows = []
    for kind, counts in document["kinds"].items():
        seconds = sum(cell.seconds for cell in found.cells if cell.kind == kind)
        rows.append((kind, counts["cells"], counts["finished"], _time(seconds)))
    rows.append(("all", len(cells), len(found.finished), _time(document["seconds"])))
    emit(document, table(("kind", "cells", "finished", "time of one worker"), rows), as_json=json)
    note(
        f"Left: about {_time(document['seconds_left'])} with {workers} worker(s) on this machine. A step keeps up to "
        f"{memory / 1e9:.2f} GB beside the model, and is split where that does not fit."
    )


@command(
    app,
    "spoton study run mine",
    "spoton study run mine --workers 2",
    "spoton study run mine --executor ray --address auto --workers 8 --worker-gpus 1",
)
def run(
    folder: Folder,
    executor: Annotated[Literal["local", "ray"], typer.Option(help="Where cells run.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, each with its own model.")] = 1,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, ray://host:10001. Not given: one on this machine.")
    ] = None,
    worker_cpus: Annotated[float, typer.Option(min=0, help="Cores of a Ray worker.")] = 1.0,
    worker_gpus: Annotated[float, typer.Option(min=0, help="GPUs of a Ray worker.")] = 0.0,
    together: Annotated[
        int, typer.Option(min=1, help="Cells of one target that share every pass over the model.")
    ] = 1,
    tries: Annotated[
        int, typer.Option(min=1, help="How often a cell is tried before it counts as failed.")
    ] = 2,
    json: Json = False,
) -> None:
    """Run every cell that is not finished; run it again to go on after Ctrl-C or a kill."""
    from spoton.study.plan.cost import Predictor
    from spoton.study.run.cell_runner import CellRunner
    from spoton.study.run.executors import Executor, local_executor
    from spoton.study.run.ray_executor import OnRay
    from spoton.study.run.scheduler import run_cells

    with live_progress() as on_event:
        cell_runner = CellRunner(folder, on_message=note)
        cells = cell_runner.cells()
        predictor = Predictor(cell_runner.model, cell_runner.task)
        runs_on: Executor = (
            OnRay(cell_runner, address=address, workers=workers, cpus=worker_cpus, gpus=worker_gpus)
            if executor == "ray"
            else local_executor(cell_runner, workers, on_event)
        )
        found = run_cells(
            cell_runner.store, cells, runs_on,
            together=together, tries=tries, predicted=predictor.seconds, on_event=on_event,
        )  # fmt: skip
    emit(found.to_json(), _told(found), as_json=json)
    if found.left:
        for name, error in found.failed.items():
            note(f"{name} failed: {_last_line(error)}")
        note(f"{len(found.left)} cells are left. `spoton study status {folder}` shows the tracebacks.")
        raise typer.Exit(FAILED)


@command(app, "spoton study status mine")
def status(folder: Folder, json: Json = False) -> None:
    """Show what is finished, what failed and why, and the time left."""
    from spoton.study.run.scheduler import read_plan, status_of
    from spoton.study.run.store import Store

    store = Store(folder)
    found = status_of(store, read_plan(store))
    emit(found.to_json(), _told(found), as_json=json)
    if not json:
        for name, error in found.failed.items():
            stdout().print(f"\n{name} failed:\n{error.strip()}")


def _told(found: Status) -> RenderableType:
    document = found.to_json()
    rows = [
        (f"{kind} cells", f"{counts['finished']} of {counts['cells']}")
        for kind, counts in document["kinds"].items()
    ]
    rows.append(("all cells", f"{document['finished']} of {document['cells']}"))
    rows.append(("failed", str(len(found.failed))))
    if found.left:
        rows.append(("time left", f"{_time(found.seconds_left)} of one worker"))
    return facts(rows)


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1] if lines else "no message"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
