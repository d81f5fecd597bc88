"""`spoton study`: plan, run and watch a transfer study."""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType

from spoton.cli.command import command
from spoton.cli.options import Json
from spoton.cli.output import emit, facts, note, quiet_stdout, stdout, table
from spoton.cli.progress import live_progress
from spoton.cli.threads import keep_within_quota

if TYPE_CHECKING:
    from spoton.study.plan.estimate import Estimate
    from spoton.study.run.cell_runner import CellRunner
    from spoton.study.run.scheduler import Status

app = typer.Typer(help="Run and analyse a transfer study: sources x targets x seeds.", no_args_is_help=True)

Folder = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help="The study's folder, with study.yaml in it; or its fsspec URL."),
]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes, each with its own model.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1, ...; auto gives each worker a GPU if there are GPUs.")
]
DeviceMap = Annotated[
    str | None, typer.Option(help="auto, for models that do not fit on one device (needs accelerate).")
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the layers, once in every worker.")]
FAILED = 1
_YEAR = 365.25 * 86400


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
        raise StudyError(f"{path} already exists. Choose another folder, or edit the file.") from error
    emit(
        {"study": str(path)},
        f"{path} is written. Edit it, then: spoton study plan {shlex.quote(str(folder))}",
        as_json=json,
    )


@command(
    app,
    "spoton study plan mine",
    "spoton study plan mine --workers 2 --json",
    "spoton study plan --preset spot-paper",
)
def plan(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER", help="The study's folder, or its fsspec URL."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Estimate a preset from published sizes, without a folder, weights or rows."),
    ] = None,
    workers: Workers = 1,
    device: Device = "auto",
    device_map: DeviceMap = None,
    compile: Compile = False,
    json: Json = False,
) -> None:
    """List the cells, with the time and memory they need on this machine, and run nothing.

    If the model or rows are missing, the cells are counted from published sizes, and everything that is missing is
    listed.
    """
    from spoton.errors import StudyError
    from spoton.study.plan.estimate import estimate
    from spoton.study.plan.study_file import parse_study_file, preset_text
    from spoton.study.run.cell_runner import CellRunner, Placement

    if (folder is None) == (preset is None):
        raise StudyError("Give either the folder of a study, or --preset and its name.")
    if preset is not None:
        _show_estimate(estimate(parse_study_file(preset_text(preset), f"preset {preset}")), json)
        return
    with quiet_stdout():
        cell_runner = CellRunner(
            str(folder), placement=Placement(device, device_map, compile), on_message=note
        )
        missing = cell_runner.missing()
    if missing:
        try:
            found = estimate(cell_runner.study, missing)
        except StudyError:
            raise StudyError("The study cannot be planned; missing: " + " ".join(missing)) from None
        _show_estimate(found, json)
        raise typer.Exit(FAILED)
    _show_plan(cell_runner, workers, json)


def _show_plan(cell_runner: CellRunner, workers: int, json: bool) -> None:
    """Writes and shows the plan of a study whose model and rows are available."""
    from spoton.study.plan.cells import Scratch, Source
    from spoton.study.plan.cost import Predictor
    from spoton.study.plan.machine import share_of
    from spoton.study.run.scheduler import status_of, write_plan

    keep_within_quota()
    with quiet_stdout():
        cells = cell_runner.cells()
        share = share_of(workers, on_gpu=cell_runner.model.device.type == "cuda")
        with share.threads_taken():
            predictor = Predictor(cell_runner.model, cell_runner.task, cells)
    status = status_of(cell_runner.store, write_plan(cell_runner.store, cells, predictor.seconds))
    memory = max(map(predictor.memory, cells), default=0.0)
    document = status.to_json() | {
        "seconds": sum(cell.seconds for cell in status.cells), "seconds_left": status.seconds_left / share.at_once,
        "workers": workers, "at_once": share.at_once, "memory_bytes": memory, "names": [cell.name for cell in cells],
    }  # fmt: skip
    seconds_by_kind: dict[str, float] = {}
    for cell in status.cells:
        seconds_by_kind[cell.kind] = seconds_by_kind.get(cell.kind, 0.0) + cell.seconds
    rows = [
        (kind, counts["cells"], counts["finished"], _time(seconds_by_kind[kind]))
        for kind, counts in document["kinds"].items()
    ]
    rows.append(("all", len(cells), len(status.finished), _time(document["seconds"])))
    emit(document, table(("kind", "cells", "finished", "time of one worker"), rows), as_json=json)
    keyless = {
        cell.task
        for cell in cells
        if isinstance(cell, (Source, Scratch)) and cell.recipe.steps < cell.recipe.key_step
    }
    if keyless:
        note(
            f"The recipe of {', '.join(sorted(keyless))} ends before its key_step, so there are no keys to compare: "
            "give more steps, or a smaller key_step."
        )
    if share.at_once < workers:
        note(f"{workers} workers share {share.at_once} core(s) or GPU(s): more workers save no time.")
    note(
        f"Left: about {_time(document['seconds_left'])} with {workers} worker(s) on this machine. A step keeps up to "
        f"{memory / 1e9:.2f} GB next to the model, and is split if that does not fit."
    )


def _show_estimate(found: Estimate, json: bool) -> None:
    """Shows what a study costs according to published sizes, and what is missing to run it."""
    rows = [
        (kind, totals.cells, f"{totals.steps:,.0f}", f"{totals.tokens:.2e}", f"{totals.flop:.2e}")
        for kind, totals in [*found.kinds.items(), ("all", found.total)]
    ]
    emit(found.to_json(), table(("kind", "cells", "steps", "tokens", "FLOP"), rows), as_json=json)
    hours = ", ".join(f"{hours:,.1f} of {name}" for name, hours in found.hours().items())
    note(
        f"Hours of one device at {found.to_json()['use_of_peak']:.0%} of its peak: {hours}. Computed, not measured."
    )
    for line in found.assumed:
        note(line)
    for line in found.missing:
        note(f"Missing: {line}")


@command(
    app,
    "spoton study run mine",
    "spoton study run mine --workers 2",
    "spoton study run mine --executor ray --address auto --workers 8 --worker-gpus 1",
)
def run(
    folder: Folder,
    executor: Annotated[Literal["local", "ray"], typer.Option(help="Where cells run.")] = "local",
    workers: Workers = 1,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, ray://host:10001. Default: a new one here.")
    ] = None,
    worker_cpus: Annotated[float, typer.Option(min=0, help="Cores of a Ray worker.")] = 1.0,
    worker_gpus: Annotated[float, typer.Option(min=0, help="GPUs of a Ray worker.")] = 0.0,
    together: Annotated[
        int, typer.Option(min=1, help="How many cells of one kind share every pass through the model.")
    ] = 1,
    tries: Annotated[
        int, typer.Option(min=1, help="How many times a cell is tried before it counts as failed.")
    ] = 2,
    device: Device = "auto",
    device_map: DeviceMap = None,
    compile: Compile = False,
    json: Json = False,
) -> None:
    """Run every cell that is not finished. After Ctrl-C or a kill, the same command resumes."""
    from spoton.errors import StudyError
    from spoton.study.plan.cost import Predictor
    from spoton.study.plan.machine import share_of
    from spoton.study.run.cell_runner import CellRunner, Placement
    from spoton.study.run.executors import Executor, local_executor
    from spoton.study.run.ray_executor import OnRay
    from spoton.study.run.scheduler import run_cells

    keep_within_quota()
    with live_progress() as on_event:
        cell_runner = CellRunner(folder, placement=Placement(device, device_map, compile), on_message=note)
        if starts := cell_runner.missing_starts():
            raise StudyError(" ".join(starts))
        cells = cell_runner.cells()
        with share_of(workers, on_gpu=cell_runner.model.device.type == "cuda").threads_taken():
            predictor = Predictor(cell_runner.model, cell_runner.task, cells)
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
    if found.damaged:
        rows.append(("damaged", f"{len(found.damaged)}, which run again: {', '.join(found.damaged[:3])}"))
    if found.left:
        rows.append(("time left", f"{_time(found.seconds_left)} of one worker"))
    return facts(rows)


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1] if lines else "no message"


def _time(seconds: float) -> str:
    if seconds >= _YEAR:
        return f"{seconds / _YEAR:,.1f} years" if seconds < 1e6 * _YEAR else f"{seconds / _YEAR:.1e} years"
    return str(timedelta(seconds=round(seconds)))
