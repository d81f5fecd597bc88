"""Cells on a Ray cluster: tasks with resources, one model per worker process, retried when a worker dies.

All nodes have to see the same study's folder: a shared path, or an fsspec URL. Rows are read here, once, and put into
Ray's object store; a task gets references to them, and a worker fetches the rows that it needs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from spoton.errors import StudyError
from spoton.study.plan.cell_base import TaskRole
from spoton.study.run.cell_runner import CellRunner, Placement
from spoton.study.run.executors import CellGroup, Outcome, attempt
from spoton.tasks.task import Task

# How many times Ray starts a task again after its worker died, before the task counts as failed.
_RETRIES = 3

# The only environment variables that tasks get: where to find models and rows. Ray keeps these in the job's metadata
# and shows them in its dashboard, so none of them is secret; a node that needs a token has to have its own.
_PASSED_ON = (
    "SPOTON_CACHE", "SPOTON_DATA_DIR", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY",
)  # fmt: skip


class OnRay:
    """Groups of cells as Ray tasks.

    Args:
        cell_runner: The study, whose folder or URL every node has to see.
        address: Address of a running cluster (`auto`, `ray://host:10001`); None: a new cluster on this machine.
        workers: How many tasks run at a time.
        cpus: Cores per task.
        gpus: GPUs per task; with fractions, several tasks share one.

    Raises:
        StudyError: Ray is not installed, there is no cluster at the address, or no node can hold a task of that size.
    """

    def __init__(
        self,
        cell_runner: CellRunner,
        *,
        address: str | None = None,
        workers: int = 1,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise StudyError(
                "The executor ray needs the package ray: pip install 'spoton[ray]'. `--executor local --workers N` "
                "needs no other package."
            ) from error
        self._ray: Any = ray
        self.slots = workers
        store = cell_runner.store
        self._place = store.place if store.local is None else str(store.local.absolute())
        self._placement = cell_runner.placement
        self._own = not ray.is_initialized()
        if self._own:
            self._connect(address, workers, cpus, gpus)
        self._require_room(cpus, gpus)
        threads = str(max(1, math.floor(cpus)))
        remote = ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES, retry_exceptions=False,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": threads} | passed_on(os.environ)},
        )  # fmt: skip
        self._task: Any = remote(_in_worker)
        self._rows: Any = ray.put({place: ray.put(task) for place, task in cell_runner.every_task().items()})
        self._refs: dict[Any, CellGroup] = {}

    def submit(self, group: CellGroup) -> None:
        """Accepts a group."""
        self._refs[self._task.remote(self._place, self._placement, self._rows, group)] = group

    def wait(self) -> list[Outcome]:
        """Waits for at least one group."""
        done, _ = self._ray.wait(list(self._refs), num_returns=1)
        outcomes = []
        for ref in done:
            group = self._refs.pop(ref)
            try:
                outcomes.append(Outcome(group, self._ray.get(ref)))
            except self._ray.exceptions.RayError as error:  # the worker died in every attempt
                outcomes.append(Outcome(group, f"{type(error).__name__}: {error}"))
        return outcomes

    def close(self) -> None:
        """Ends tasks that still run, and the cluster if it was started here."""
        for ref in self._refs:
            self._ray.cancel(ref, force=True)
        if self._own:
            self._ray.shutdown()

    def _connect(self, address: str | None, workers: int, cpus: float, gpus: float) -> None:
        options: dict[str, Any] = {"address": address} if address else {
            "num_cpus": math.ceil(workers * cpus), "num_gpus": math.ceil(workers * gpus),
            "include_dashboard": False,
        }  # fmt: skip
        try:
            self._ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise StudyError(
                f"No Ray cluster at {address}: {error}. Start one with `ray start --head`, or leave out --address to "
                "start one on this machine."
            ) from error

    def _require_room(self, cpus: float, gpus: float) -> None:
        """Refuses tasks that no node can hold, since they would wait forever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            raise StudyError(
                f"No node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs, which one worker needs; its nodes "
                f"have {'; '.join(_words(node) for node in nodes) or 'nothing'}. Lower --worker-cpus or --worker-gpus."
            )


def _words(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of this process's environment that tasks get."""
    return {name: environment[name] for name in _PASSED_ON if name in environment}


_cell_runners: dict[str, CellRunner] = {}


def _in_worker(
    place: str, placement: Placement, rows: Mapping[tuple[TaskRole, str], Any], group: CellGroup
) -> str:
    """Runs a group in the cell runner of this worker process, which is opened once.

    Args:
        place: The study's folder or URL.
        placement: Where the model is held.
        rows: References to the tasks, by role and name.
        group: The cells to run.
    """
    if place not in _cell_runners:
        import ray

        def task(role: TaskRole, name: str) -> Task:
            found: Task = ray.get(rows[role, name])
            return found

        _cell_runners[place] = CellRunner(place, placement=placement, tasks=task)
    return attempt(_cell_runners[place], group)
