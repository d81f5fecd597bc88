"""Where cells are carried out: one model, the tasks it has met, and the study's folder, opened once per process.

A result is written last and in one step, after its prompt, so a cell is finished or it is not. Which cell comes when,
and on which machine, is the business of ``scheduler.py`` and the executors.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spoton.errors import DivergenceError, Interrupted, StudyError
from spoton.evaluation.form import form_for
from spoton.evaluation.score import evaluate
from spoton.events import OnEvent, silent
from spoton.models.frozen import FrozenModel
from spoton.models.loading import load_model
from spoton.prompts.card import Parent
from spoton.prompts.initial import from_prompt
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.sealing import sealed_json
from spoton.study.plan.cells import Cell, Held, Role, cells_of
from spoton.study.plan.study_file import StudyFile, parse_study_file
from spoton.study.run.store import STUDY_FILE, Store
from spoton.tasks.catalog import is_task
from spoton.tasks.load import MIXTURE, has_forms, resolve_task
from spoton.tasks.metrics import compute
from spoton.tasks.mixture import mix
from spoton.tasks.task import Task
from spoton.transfer.combine import starts
from spoton.transfer.rank_sources import Retrieved
from spoton.transfer.similarity import similarity
from spoton.tuning.full_model.checkpoint import remove_model_checkpoint
from spoton.tuning.full_model.tune import TunedModel, tune_model
from spoton.tuning.prompt_run import Job, Tuned
from spoton.tuning.record import versions
from spoton.tuning.sealed_tensors import discard_if_damaged
from spoton.tuning.tune import tune_together


@dataclass(frozen=True)
class _Start:
    """Where a cell's prompt starts: None means as its recipe says."""

    value: Tensor | None = None
    parents: tuple[Parent, ...] = ()
    notes: tuple[str, ...] = ()


class CellRunner:
    """Carries out cells.

    Args:
        place: The study's folder or URL.
        on_message: Told about downloads and choices.

    Raises:
        StudyError: The folder has no study file, or one that does not hold together.
    """

    def __init__(
        self, place: str | Path, *, on_message: Callable[[str], None] = lambda message: None
    ) -> None:
        self.store = Store(place)
        text = self.store.read(STUDY_FILE)
        if text is None:
            raise StudyError(
                f"{place} is no study: it has no {STUDY_FILE}. `spoton study new {place}` writes one to start from."
            )
        self.study: StudyFile = parse_study_file(
            text.decode("utf-8", "replace"), f"{self.store.place}/{STUDY_FILE}"
        )
        self._tell = on_message
        self._model: FrozenModel | None = None
        self._tasks: dict[tuple[Role, str], Task] = {}

    @property
    def model(self) -> FrozenModel:
        """The frozen model, loaded when it is first asked for."""
        if self._model is None:
            self._model = load_model(self.study.model, dtype=self.study.dtype, on_message=self._tell)
        return self._model

    @property
    def held(self) -> Held:
        """What of the model decides results."""
        return Held(self.model.fingerprint, str(self.model.dtype).removeprefix("torch."))

    def task(self, role: Role, name: str) -> Task:
        """A task with the sizes of its role; read once.

        Raises:
            DataError: Its rows cannot be used.
        """
        if (role, name) not in self._tasks:
            group = self.study.sources if role == "source" else self.study.targets
            entry = next(e for e in [*group.tasks, *self.study.candidates] if e.task == name)
            options = dict(entry.options)
            if is_task(name) or name.startswith(MIXTURE):
                options.setdefault("protocol", self.study.protocol)
                if self.study.data_dir is not None:
                    options.setdefault("data_dir", self._beside(self.study.data_dir))
            if has_forms(name):
                options.setdefault(
                    "form", form_for(self.model) if self.study.form == "auto" else self.study.form
                )
            for which in ("validation", "test"):
                if isinstance(options.get(which), str):
                    options[which] = Path(self._beside(options[which]))
            task = resolve_task(self._beside(name), on_message=self._tell, **options)
            task = task.limited(group.train_size, group.validation_size, group.test_size)
            if role == "target" and not task.test:
                raise StudyError(
                    f"The target {name} has no test split, and scores are reported on one. Give it one in its options."
                )
            self._tasks[role, name] = task
        return self._tasks[role, name]

    def cells(self) -> list[Cell]:
        """All cells of the study. Reads every task, and loads the model."""
        return cells_of(self.study, self.held, self.task)

    def finished(self) -> set[str]:
        """Names of the cells that have their result."""
        return self.store.finished()

    def carry_out(self, cells: Sequence[Cell], on_event: OnEvent = silent) -> None:
        """Carries out cells that are not finished yet; several are tuned in every pass over the model.

        Cells with `Cell.halving` have to come with all their rivals, finished ones as well.

        Raises:
            Interrupted: Ctrl-C; checkpoints are kept where the folder is local.
            StudyError: The rows or the model are not those that the cells were named after.
            SpotonError: As tuning raises; the first error of several cells, after the others were written.
        """
        done = self.finished()
        todo = [cell for cell in cells if cell.name not in done]
        for cell in todo:
            self._require_same(cell)
        for cell in todo:
            if cell.kind == "zero-shot":
                self._write(cell, self._zero_shot(cell, on_event))
            elif cell.kind == "model-tuning":
                self._tune_model(cell, on_event)
        tuned = [cell for cell in todo if cell.kind not in ("zero-shot", "model-tuning")]
        began = time.monotonic()
        begun = [self._start(cell, on_event) for cell in tuned]
        jobs = [self._job(cell, start, on_event) for cell, start in zip(tuned, begun, strict=True)]
        errors: list[DivergenceError] = []
        halving = tuned[0].halving if tuned else None
        rivals = {i: self._looks(cell) for i, cell in enumerate(cells) if halving and cell.name in done}
        results = tune_together(self.model, jobs, halving=halving, rivals=rivals) if jobs else []
        each = (time.monotonic() - began) / max(1, len(tuned))
        for cell, start, found in zip(tuned, begun, results, strict=True):
            if isinstance(found, DivergenceError):
                errors.append(found)
            elif found.stopped == "interrupted":
                raise Interrupted(f"{cell.words}: {found.message}")
            else:
                self._finish(cell, start, found, each, on_event)
        if errors:
            raise errors[0]

    def _finish(self, cell: Cell, start: _Start, tuned: Tuned, seconds: float, on_event: OnEvent) -> None:
        """Scores a tuned prompt on the test split, once, and writes what is kept of it.

        Args:
            cell: Which.
            start: Where its prompt started.
            tuned: Its prompt.
            seconds: Its share of the time that tuning took.
            on_event: Watches the progress.
        """
        task, prompt, began = self.task(cell.role, cell.task), tuned.prompt, time.monotonic()
        scores = dict(prompt.card.scores)
        if task.test:
            found = evaluate(
                self.model, prompt.value, task.test, task, cell.mode,
                max_input_tokens=cell.recipe.max_input_tokens, on_event=on_event, phase=f"{cell.words}, test",
            )  # fmt: skip
            scores["test"] = found.scores
            prompt = replace(prompt, card=prompt.card.model_copy(update={"scores": scores}))
        if cell.kind in ("source", "scratch") or self.study.keep_prompts == "all":
            self.store.write(f"prompts/{cell.name}.safetensors", prompt.to_bytes())
        self._write(
            cell,
            _scored(task, scores)
            | _told(tuned)
            | {
                "best_step": prompt.card.best_step, "notes": list(start.notes),
                "parents": [parent.model_dump() for parent in start.parents], "prompt_hash": prompt.content_hash(),
                "seconds": seconds + time.monotonic() - began,
            }
            | ({"halving": cell.halving.model_dump(), "dropped": tuned.dropped} if cell.halving else {}),
        )  # fmt: skip
        checkpoint = self.store.checkpoint(cell.name)
        for left in (checkpoint, checkpoint and _first_stage(checkpoint)):
            if left is not None:
                left.unlink(missing_ok=True)

    def _tune_model(self, cell: Cell, on_event: OnEvent) -> None:
        """Tunes all weights of a copy of the model, scores them on the test split, once, and keeps the scores alone."""
        task, began, recipe = self.task(cell.role, cell.task), time.monotonic(), cell.model_recipe
        assert recipe is not None
        checkpoint = self.store.checkpoint(cell.name)
        tuned = tune_model(
            self.model, task, recipe, mode=cell.mode, checkpoint=checkpoint, resume=True, on_event=on_event,
            phase=cell.words,
        )  # fmt: skip
        if tuned.stopped == "interrupted":
            raise Interrupted(f"{cell.words}: {tuned.message}")
        found = evaluate(
            tuned.model, None, task.test, task, cell.mode, max_input_tokens=recipe.max_input_tokens,
            on_event=on_event, phase=f"{cell.words}, test",
        )  # fmt: skip
        self._write(
            cell,
            _scored(task, tuned.scores | {"test": found.scores})
            | _told(tuned)
            | {
                "best_step": tuned.best_step, "tuned_parameters": tuned.parameters,
                "tuned_bytes": 4 * tuned.parameters, "tuned_dtype": "float32", "seconds": time.monotonic() - began,
            },
        )  # fmt: skip
        if checkpoint is not None:
            remove_model_checkpoint(checkpoint)

    def _zero_shot(self, cell: Cell, on_event: OnEvent) -> dict[str, Any]:
        """The bare model, and always answering what is most frequent in the training split."""
        task, began = self.task(cell.role, cell.task), time.monotonic()
        most = Counter(example.target for example in task.train).most_common(1)[0][0]
        scores, always = {}, {}
        for split, examples in (("validation", task.validation), ("test", task.test)):
            found = evaluate(
                self.model, None, examples, task, cell.mode, max_input_tokens=cell.recipe.max_input_tokens,
                on_event=on_event, phase=f"{cell.words}, {split}",
            )  # fmt: skip
            scores[split] = found.scores
            targets = [example.target for example in examples]
            always[split] = compute(
                task.metrics, [most] * len(targets), targets, task.labels, examples=examples
            )
        majority = {split: by_metric[task.metric] for split, by_metric in always.items()}
        return _scored(task, scores) | {"majority": majority, "seconds": time.monotonic() - began}

    def _job(self, cell: Cell, start: _Start, on_event: OnEvent) -> Job:
        task, checkpoint = self.task(cell.role, cell.task), self.store.checkpoint(cell.name)
        if checkpoint is not None:
            discard_if_damaged(checkpoint)
        return Job(
            task, cell.recipe, start.value, start.parents, cell.mode, checkpoint, resume=True,
            on_event=on_event, phase=cell.words,
        )  # fmt: skip

    def _start(self, cell: Cell, on_event: OnEvent) -> _Start:
        """Where a cell's prompt starts."""
        if cell.kind == "transfer":
            return self._from(self.store.prompt(cell.needs[0]), cell.needs[0], cell.recipe.length)
        if cell.kind == "weighted-average":
            (start,) = starts(self._retrieved(cell), "weighted-average", cell.recipe.length)
            return _Start(start.value, start.parents, (f"Average of {start.name}.",))
        if cell.kind == "multi-task-mixture":
            return self._mixture(cell, on_event)
        return _Start()

    def _from(self, prompt: SoftPrompt, name: str, length: int) -> _Start:
        prompt.require_model(self.model.fingerprint, self.model.name)
        parent = Parent(name=name, weight=1.0, hash=prompt.content_hash())
        return _Start(from_prompt(prompt.value, length), (parent,))

    def _retrieved(self, cell: Cell) -> list[Retrieved]:
        """The k source prompts, of all tasks and seeds, whose keys are nearest to the target's (SPoT, section 3.3)."""
        key = self.store.prompt(cell.needs[-1]).key
        assert key is not None and cell.similarity is not None
        ranked = []
        for name in cell.needs[:-1]:
            prompt = self.store.prompt(name)
            if prompt.key is None:
                raise StudyError(f"{name} has no key: its recipe ends before its key_step.")
            ranked.append(Retrieved(name, similarity(key, prompt.key, cell.similarity), prompt))
        return sorted(ranked, key=lambda one: (-one.similarity, one.name))[: cell.k]

    def _mixture(self, cell: Cell, on_event: OnEvent) -> _Start:
        """A prompt tuned on the tasks of the top k and the target, mixed; its last state (SPoT, section 3.3)."""
        assert cell.source_recipe is not None
        found = self._retrieved(cell)
        names = sorted({one.prompt.card.task for one in found})
        by_name = {self.task("source", e.task).name: e.task for e in self.study.sources.tasks}
        members = [self.task("source", by_name[name]) for name in names] + [self.task("target", cell.task)]
        mixed = mix("+".join(task.name for task in members), members, seed=cell.seed)
        checkpoint = self.store.checkpoint(cell.name)
        if checkpoint is not None:
            checkpoint = _first_stage(checkpoint)
            discard_if_damaged(checkpoint)
        job = Job(
            mixed, cell.source_recipe, checkpoint=checkpoint, resume=True,
            on_event=on_event, phase=f"{cell.words}, mixture",
        )  # fmt: skip
        (tuned,) = tune_together(self.model, [job])
        if isinstance(tuned, DivergenceError):
            raise tuned
        if tuned.stopped == "interrupted":
            raise Interrupted(f"{cell.words}: {tuned.message}")
        start = self._from(tuned.prompt, mixed.name, cell.recipe.length)
        return replace(start, notes=(f"Mixture of {', '.join(names)} and {cell.task}.",))

    def _looks(self, cell: Cell) -> list[dict[str, float]]:
        """What a finished cell's looks at the validation split found."""
        found: list[dict[str, float]] = json.loads(self.store.read(f"cells/{cell.name}.json") or b"{}").get(
            "looks", []
        )
        return found

    def _require_same(self, cell: Cell) -> None:
        task = self.task(cell.role, cell.task)
        for what, here, named in (
            ("model", tuple(self.held), tuple(cell.held)),
            (f"rows of {cell.task}", task.data_hash(), cell.data_hash),
        ):
            if here != named:
                raise StudyError(
                    f"{cell.name} was planned with another {what} ({named}) than is found here ({here}). Give every "
                    "worker the same files, model and --dtype."
                )

    def _write(self, cell: Cell, result: dict[str, Any]) -> None:
        """The result of a cell, last of all its files."""
        named = {
            "name": cell.name, "kind": cell.kind, "task": cell.task, "source": cell.source, "seed": cell.seed,
            "k": cell.k, "similarity": cell.similarity, "evaluation": cell.mode, "needs": list(cell.needs),
        }  # fmt: skip
        how = {
            "recipe": (cell.model_recipe or cell.recipe).model_dump(), "data_hash": cell.data_hash,
            "model": self.model.name, "model_fingerprint": cell.held.fingerprint, "dtype": cell.held.dtype,
            "threads": torch.get_num_threads(), "versions": versions(),
        }  # fmt: skip
        self.store.write(f"cells/{cell.name}.json", sealed_json(named | result | how))
        self.store.remove(f"failures/{cell.name}.json")

    def _beside(self, path: str) -> str:
        """A path of the study file: one beside it, if there is any, else as it is."""
        folder = self.store.local
        return str(folder / path) if folder is not None and (folder / path).exists() else path


def _first_stage(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".mixture")


def _scored(task: Task, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What a cell's result says of its task and of the scores by split and metric."""
    return {
        "scores": {split: by_metric[task.metric] for split, by_metric in scores.items()}, "all_scores": scores,
        "splits": task.splits(), "labels": None if task.labels is None else len(task.labels), "family": task.family,
        "metric": task.metric, "form": task.form, "source_of_rows": task.source,
    }  # fmt: skip


def _told(tuned: Tuned | TunedModel) -> dict[str, Any]:
    """What a cell's result says of its run, whatever was tuned."""
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    return {
        "steps": tuned.steps, "looks": [entry for entry in tuned.history if "validation" in entry],
        "first_loss": losses[0] if losses else None, "last_loss": losses[-1] if losses else None,
        "truncated": tuned.truncated, "message": tuned.message,
    }  # fmt: skip
