"""Runs cells: one model, the tasks that were read, and the study's folder, opened once per process.

A result is written last and in one step, after its prompt, so a cell is either finished or not. `scheduler.py` and the
executors decide which cell runs when, and on which machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spoton.errors import DivergenceError, SpotonError, StudyError
from spoton.evaluation.form import form_for
from spoton.evaluation.score import default_mode, evaluate
from spoton.events import OnEvent, silent
from spoton.models.frozen import FrozenModel
from spoton.models.loading import load_model
from spoton.sealing import sealed_json
from spoton.study.plan.cell_base import ROLES, Held, TaskRole
from spoton.study.plan.cells import Cell, LibrarySource, Transfer, WeightTuning, ZeroShot
from spoton.study.plan.grid import PromptFacts, TaskFacts, cells_of
from spoton.study.plan.study_file import StudyFile, parse_study_file
from spoton.study.run.given import GivenSources
from spoton.study.run.model_cells import ModelCells
from spoton.study.run.result import Result, document_of_result, document_of_source
from spoton.study.run.starts import CellStart, Starts, first_stage
from spoton.study.run.store import STUDY_FILE, Store
from spoton.tasks.catalog import is_task
from spoton.tasks.load import MIXTURE_PREFIX, has_forms, resolve_task
from spoton.tasks.majority import majority_scores
from spoton.tasks.task import Task
from spoton.transfer.adapt import neighbour
from spoton.tuning.full_model.checkpoint import remove_model_checkpoint
from spoton.tuning.initial_prompt import is_start, no_start
from spoton.tuning.kept import require_end
from spoton.tuning.prompt_run import Job, Tuned
from spoton.tuning.sealed_tensors import discard_if_damaged
from spoton.tuning.tune import tune_together


@dataclass(frozen=True)
class Placement:
    """Where a process holds the model; it affects how fast cells run, not their names.

    Attributes:
        device: A torch device, or `auto`.
        device_map: Passed to transformers for models that do not fit on one device; None: one device.
        compile: Whether layers are compiled.
    """

    device: str = "auto"
    device_map: str | None = None
    compile: bool = False


class CellRunner:
    """Runs cells.

    Args:
        place: The study's folder or URL.
        placement: Where the model is held.
        tasks: Returns the task of a role and name, so that no rows are read here; None: rows are read as the study
            file says.
        on_message: Receives messages about downloads and choices.

    Raises:
        StudyError: The folder has no study file, or the file is not valid.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        placement: Placement | None = None,
        tasks: Callable[[TaskRole, str], Task] | None = None,
        on_message: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.store = Store(place)
        text = self.store.read(STUDY_FILE)
        if text is None:
            raise StudyError(
                f"{place} is not a study: it has no {STUDY_FILE}. `spoton study new {place}` writes one to start from."
            )
        self.study: StudyFile = parse_study_file(
            text.decode("utf-8", "replace"), f"{self.store.place}/{STUDY_FILE}"
        )
        if self.study.mixture and self.store.local is None:
            raise StudyError(
                f"model_tuning.mixture keeps weights of the whole model in the study's folder, and {place} is a URL. "
                "Run the study in a folder, or leave out the mixture."
            )
        self.placement = placement or Placement()
        self._tell = on_message
        self._read_task = tasks or self._read
        self._model: FrozenModel | None = None
        self._tasks: dict[tuple[TaskRole, str], Task] = {}
        self._hashes: dict[tuple[TaskRole, str], str] = {}
        sources = self.study.sources
        self._given = sources.library and GivenSources(self._near(sources.library), sources.prompts)

    @property
    def model(self) -> FrozenModel:
        """The frozen model, loaded on first use."""
        if self._model is None:
            self._model = load_model(
                self.study.model, dtype=self.study.dtype, on_message=self._tell, **asdict(self.placement)
            )
        return self._model

    @property
    def held(self) -> Held:
        """The properties of the model that decide results."""
        return Held(self.model.fingerprint, str(self.model.dtype).removeprefix("torch."))

    def task(self, role: TaskRole, name: str) -> Task:
        """Returns a task with the sizes of its role; it is read once.

        Raises:
            DataError: Its rows cannot be used.
            StudyError: Its options cannot be used, or a target has no test split.
        """
        if (role, name) not in self._tasks:
            self._tasks[role, name] = self._read_task(role, name)
        return self._tasks[role, name]

    def every_task(self) -> dict[tuple[TaskRole, str], Task]:
        """Returns all tasks of the study, by role and name."""
        return {place: self.task(*place) for place in self._places()}

    def missing(self) -> tuple[str, ...]:
        """Returns one message for everything that cannot be read: the model, tasks, and prompts to start from."""
        told = list(self.missing_starts())
        reads: list[tuple[str, Callable[[], object]]] = [(self.study.model, lambda: self.model)]
        reads += [(name, partial(self.task, role, name)) for role, name in self._places()]
        reads += [(self._given.place, self.prompts)] if self._given else []
        for name, read in reads:
            try:
                read()
            except SpotonError as error:
                told.append(str(error) if name in str(error) else f"{name}: {error}")
        return tuple(dict.fromkeys(told))

    def missing_starts(self) -> tuple[str, ...]:
        """Returns one message for every file that a recipe names as its start and that is not here.

        Nothing is missing if the study is at a URL, since its cells may run on machines that have the files.
        """
        study = self.study
        if self.store.local is None:
            return ()
        groups = (
            (study.sources, study.sources.tasks),
            (study.targets, study.targets.tasks + study.candidates),
        )
        inits = [(entry.task, group.recipe_of(entry).init) for group, tasks in groups for entry in tasks]
        return tuple(
            f"The recipe of {task}: {no_start(init)}"
            for task, init in inits
            if not is_start(init, self.store.local)
        )

    def _places(self) -> list[tuple[TaskRole, str]]:
        return [(role, entry.task) for role in ROLES for entry in self.study.tasks_of(role)]

    def data_hash(self, role: TaskRole, name: str) -> str:
        """Returns the hash of a task's rows; computed once."""
        if (role, name) not in self._hashes:
            self._hashes[role, name] = self.task(role, name).data_hash()
        return self._hashes[role, name]

    def facts(self, role: TaskRole, name: str) -> TaskFacts:
        """Returns the properties of a task that decide results. Reads its rows."""
        task = self.task(role, name)
        return TaskFacts(self.data_hash(role, name), default_mode(task), task.name, task.source)

    def cells(self) -> list[Cell]:
        """Returns all cells of the study. Reads every task, and loads the model."""
        return cells_of(self.study, self.held, self.facts, self.prompts(), self.store.local)

    def prompts(self) -> dict[str, PromptFacts]:
        """Returns the properties of library prompts that decide results, if the study has any. Loads the model.

        Raises:
            SpotonError: The library does not exist, or one of its prompts cannot be a source.
        """
        return self._given.facts(self.model) if self._given else {}

    def carry_out(self, cells: Sequence[Cell], on_event: OnEvent = silent) -> None:
        """Runs the cells that are not finished yet; those that tune a prompt share every pass through the model.

        Transfers with `Transfer.halving` have to come with all their rivals, including finished ones.

        Raises:
            Interrupted: Ctrl-C; checkpoints are kept if the folder is local.
            StudyError: The rows or the model are not those that the cells are named by.
            SpotonError: Tuning failed; of several errors the first, raised after the other results were written.
        """
        results = {cell.name: self.store.result(cell.name) for cell in cells}
        todo = [cell for cell in cells if results[cell.name] is None]
        for cell in todo:
            self._require_same(cell)
        tuned: list[Cell] = []
        for cell in todo:
            began = time.monotonic()
            if isinstance(cell, ZeroShot):
                self._write(cell, self._zero_shot(cell, on_event), began)
            elif isinstance(cell, WeightTuning):
                self._write(cell, ModelCells(self.model, self.store, self.task).run(cell, on_event), began)
            elif isinstance(cell, LibrarySource):
                self._copy(cell)
            else:
                tuned.append(cell)
        looks = {i: found.get("looks", []) for i, cell in enumerate(cells) if (found := results[cell.name])}
        self._tune(tuned, looks, on_event)

    def _tune(
        self, cells: Sequence[Cell], looks: Mapping[int, list[dict[str, float]]], on_event: OnEvent
    ) -> None:
        """Tunes the prompts of cells in shared passes, then scores and keeps each.

        Args:
            cells: The cells to tune.
            looks: Evaluations of finished cells of the same group, by their place among all cells.
            on_event: Receives progress events.
        """
        if not cells:
            return
        first = cells[0]
        halving = first.halving if isinstance(first, Transfer) else None
        began = time.monotonic()
        starts = Starts(self.model, self.store, self.task, [entry.task for entry in self.study.sources.tasks])
        begun = [starts.of(cell, on_event) for cell in cells]
        jobs = [self._job(cell, start, on_event) for cell, start in zip(cells, begun, strict=True)]
        results = tune_together(self.model, jobs, halving=halving, rivals=looks if halving else {})
        each = (time.monotonic() - began) / len(cells)  # one cell's share of the time of tuning
        errors: list[DivergenceError] = []
        for cell, start, tuned in zip(cells, begun, results, strict=True):
            if isinstance(tuned, DivergenceError):
                errors.append(tuned)
                continue
            require_end(tuned, cell.words)
            began = time.monotonic() - each
            self._write(cell, self._tested(cell, start, tuned, on_event), began)
        if errors:
            raise errors[0]

    def _tested(self, cell: Cell, start: CellStart, tuned: Tuned, on_event: OnEvent) -> Result:
        """Scores a tuned prompt once on the test split, and keeps the prompt if other cells need it."""
        task, prompt = self.task(cell.role, cell.task), tuned.prompt
        scores = dict(prompt.card.scores)
        if task.test:
            scores["test"] = evaluate(
                self.model, prompt, task.test, task, cell.mode, max_input_tokens=cell.recipe.max_input_tokens,
                on_event=on_event, phase=f"{cell.words}, test",
            ).scores  # fmt: skip
            prompt = replace(prompt, card=prompt.card.model_copy(update={"scores": scores}))
        if cell.kind in ("source", "scratch") or self.study.keep_prompts == "all":
            self.store.write(f"prompts/{cell.name}.safetensors", prompt.to_bytes())
        more: dict[str, Any] = {
            "best_step": prompt.card.best_step, "notes": list(start.notes),
            "parents": [parent.model_dump() for parent in start.parents], "prompt_hash": prompt.content_hash(),
        }  # fmt: skip
        if isinstance(cell, Transfer) and cell.halving:
            more |= {"halving": cell.halving.model_dump(), "dropped": tuned.dropped}
        return Result(scores, tuned, more)

    def _zero_shot(self, cell: ZeroShot, on_event: OnEvent) -> Result:
        """Scores a target without a prompt: the bare model, the most frequent answer, and TF-IDF."""
        task = self.task(cell.role, cell.task)
        scores = {}
        for split, examples in (("validation", task.validation), ("test", task.test)):
            evaluation = evaluate(
                self.model, None, examples, task, cell.mode, max_input_tokens=cell.recipe.max_input_tokens,
                label_score=cell.recipe.label_score, on_event=on_event, phase=f"{cell.words}, {split}",
            )  # fmt: skip
            scores[split] = evaluation.scores
        more: dict[str, Any] = {"majority": majority_scores(task)}
        fitted, _ = neighbour(task)
        if fitted is not None:
            more["classical"] = {split: fitted.score(split) for split in fitted.scores}
        return Result(scores, more=more)

    def _copy(self, cell: LibrarySource) -> None:
        """Keeps a copy of a library's prompt, and the facts on its card."""
        assert self._given
        prompt, found = self._given.copied(cell, self.model)
        self.store.write(f"prompts/{cell.name}.safetensors", prompt.to_bytes())
        self._finish(cell, document_of_source(cell, found, model_name=self.model.name))

    def _job(self, cell: Cell, start: CellStart, on_event: OnEvent) -> Job:
        checkpoint = self.store.checkpoint(cell.name)
        if checkpoint is not None:
            discard_if_damaged(checkpoint)
        return Job(
            self.task(cell.role, cell.task), cell.recipe, start.value, start.parents, cell.mode, checkpoint,
            resume=True, on_event=on_event, phase=cell.words, tuned_as=start.tuned_as,
        )  # fmt: skip

    def _write(self, cell: Cell, result: Result, began: float) -> None:
        """Writes the result of a cell, last of all its files, and then removes its checkpoints."""
        document = document_of_result(
            cell, self.task(cell.role, cell.task), result,
            seconds=time.monotonic() - began, model_name=self.model.name,
        )  # fmt: skip
        self._finish(cell, document)
        checkpoint = self.store.checkpoint(cell.name)
        if checkpoint is not None and isinstance(cell, WeightTuning):
            remove_model_checkpoint(checkpoint)
            return
        for left in (checkpoint, first_stage(checkpoint)):
            if left is not None:
                left.unlink(missing_ok=True)

    def _finish(self, cell: Cell, document: dict[str, Any]) -> None:
        """Writes the document of a cell, which makes it finished."""
        self.store.write(f"cells/{cell.name}.json", sealed_json(document))
        self.store.remove(f"failures/{cell.name}.json")

    def _require_same(self, cell: Cell) -> None:
        held: list[tuple[str, object, object]] = [("model", tuple(self.held), tuple(cell.held))]
        if not isinstance(cell, LibrarySource):  # its rows are not read
            held.append((f"rows of {cell.task}", self.data_hash(cell.role, cell.task), cell.data_hash))
        for what, here, named in held:
            if here != named:
                raise StudyError(
                    f"Expected {what} {named} for {cell.name}, as planned; found {here}. Give every worker the same "
                    "files, model and --dtype."
                )

    def _read(self, role: TaskRole, name: str) -> Task:
        """Reads the rows of a task by the options of its entry in the study file."""
        entry = next(entry for entry in self.study.tasks_of(role) if entry.task == name)
        options = entry.options.given()
        if is_task(name) or name.startswith(MIXTURE_PREFIX):
            options.setdefault("protocol", self.study.protocol)
            if self.study.data_dir is not None:
                options.setdefault("data_dir", self._near(self.study.data_dir))
        if has_forms(name):
            options.setdefault("form", form_for(self.model) if self.study.form == "auto" else self.study.form)
        for which in ("validation", "test"):
            if options.get(which) is not None:
                options[which] = Path(self._near(str(options[which])))
        task = resolve_task(self._found(name), on_message=self._tell, **options)
        task = task.limited(*self.study.sizes_of(role))
        if role == "target" and not task.test:
            raise StudyError(
                f"The target {name} has no test split, but a study reports test scores. Give it one in its options."
            )
        return task

    def _found(self, name: str) -> str:
        """Returns a task's name with the files and folders that are in the study's folder found there."""
        if not name.startswith(MIXTURE_PREFIX):
            return self._near(name)
        members = name.removeprefix(MIXTURE_PREFIX).split(",")
        return MIXTURE_PREFIX + ",".join(self._near(member.strip()) for member in members)

    def _near(self, path: str) -> str:
        """Returns a path relative to the study's folder if it exists there, else the path unchanged."""
        folder = self.store.local
        return str(folder / path) if folder is not None and (folder / path).exists() else path
