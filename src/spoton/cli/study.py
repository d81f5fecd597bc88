"""`spoton study`: plan, run and watch a transfer study."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, facts, note, quiet_stdout, stdout, table
from spoton.cli.progress import live_progress

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
    from spoton.study.file import preset_text
    from spoton.study.store import STUDY_FILE

    path = folder / STUDY_FILE
    text = preset_text(preset)
    try:
        atomic_write(path, text.encode(), overwrite=False)
    except FileExistsError as error:
        raise StudyError(f"{path} is there already. Choose another folder, or edit it.") from error
    emit({"study": str(path)}, f"{path} is written. Edit it, then: spoton study plan {folder}", as_json=json)


@command(app, "spoton study plan mine", "spoton study plan mine --json")
def plan(folder: Folder, workers: Annotated[int, typer.Option(min=1)] = 1, json: Json = False) -> None:
    """List the cells, with the time and memory they will take here, and stop."""
    from spoton.study.cost import Predictor
    from spoton.study.running import status_of
    from spoton.study.workshop import Workshop

    with quiet_stdout():
        workshop = Workshop(folder, on_message=note)
        cells = workshop.cells()
        predictor = Predictor(workshop.model, workshop.task)
    status = status_of(workshop.store, cells)
    kinds = dict.fromkeys(cell.kind for cell in cells)
    rows = []
    for kind in kinds:
        own = [cell for cell in cells if cell.kind == kind]
        seconds = sum(map(predictor.seconds, own))
        rows.append((kind, len(own), sum(c.name in status.finished for c in own), _time(seconds)))
    total = sum(map(predictor.seconds, cells))
    left = status.seconds_left(predictor.seconds)
    memory = max(map(predictor.memory, cells))
    document = status.to_json() | {
        "seconds": total, "seconds_left": left / workers, "workers": workers, "memory_bytes": memory,
        "names": [cell.name for cell in cells],
    }  # fmt: skip
    if json:
        emit(document, "", as_json=True)
        return
    stdout().print(table(("kind", "cells", "finished", "time of one worker"), rows))
    stdout().print(
        facts(
            [
                ("cells", len(cells)),
                ("left", f"{_time(left / workers)} with {workers} worker(s), predicted"),
                ("memory a step", f"up to {memory / 1e9:.2f} GB beside the model, split if it does not fit"),
            ]
        )
    )


@command(app, "spoton study run mine", "spoton study run mine --workers 2")
def run(
    folder: Folder,
    executor: Annotated[Literal["local", "ray"], typer.Option(help="Where cells run.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, each with its own model.")] = 1,
    together: Annotated[
        int, typer.Option(min=1, help="Cells of one target that share every pass over the model.")
    ] = 1,
    tries: Annotated[
        int, typer.Option(min=1, help="How often a cell is tried before it counts as failed.")
    ] = 2,
    json: Json = False,
) -> None:
    """Run every cell that is not finished; run it again to go on after Ctrl-C or a kill."""
    from spoton.study.cost import Predictor
    from spoton.study.executors import executor_for
    from spoton.study.running import run_cells
    from spoton.study.workshop import Workshop

    with live_progress() as on_event:
        workshop = Workshop(folder, on_message=note)
        cells = workshop.cells()
        predictor = Predictor(workshop.model, workshop.task)
        status = run_cells(
            workshop.store, cells, executor_for(executor, workshop, workers, on_event),
            together=together, tries=tries, predicted=predictor.seconds, on_event=on_event,
        )  # fmt: skip
    emit(status.to_json(), _told(status.to_json()), as_json=json)
    if status.left:
        for name, error in status.failed.items():
            note(f"{name} failed: {error.strip().splitlines()[-1] if error.strip() else 'no message'}")
        note(f"{len(status.left)} cells are left. `spoton study status {folder}` shows the tracebacks.")
        raise typer.Exit(FAILED)


@command(app, "spoton study status mine")
def status(folder: Folder, json: Json = False) -> None:
    """Show what is finished, what failed and why, and the time left."""
    from spoton.study.cost import Predictor
    from spoton.study.running import status_of
    from spoton.study.workshop import Workshop

    with quiet_stdout():
        workshop = Workshop(folder, on_message=note)
        cells = workshop.cells()
        found = status_of(workshop.store, cells)
        left = found.seconds_left(Predictor(workshop.model, workshop.task).seconds) if found.left else 0.0
    document = found.to_json() | {"seconds_left": left}
    emit(document, _told(document), as_json=json)
    if not json:
        for name, error in found.failed.items():
            stdout().print(f"\n{name} failed:\n{error.strip()}")


def _told(document: dict[str, object]) -> object:
    kinds = document["kinds"]
    assert isinstance(kinds, dict)
    rows = [(f"{kind} cells", f"{found['finished']} of {found['cells']}") for kind, found in kinds.items()]
    rows.append(("all cells", f"{document['finished']} of {document['cells']}"))
    failed = document["failed"]
    assert isinstance(failed, dict)
    rows.append(("failed", str(len(failed))))
    seconds = document.get("seconds_left")
    if isinstance(seconds, float):
        rows.append(("time left", f"{_time(seconds)} for one worker"))
    return facts(rows)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
