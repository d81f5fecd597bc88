"""Tasks: where their examples come from, and how answers are scored. No models, no tensors."""

from spoton.tasks.catalog import TaskInfo, list_tasks, load_task
from spoton.tasks.data_spec import DataSpec
from spoton.tasks.example import Example
from spoton.tasks.hub import load_hub_task
from spoton.tasks.load import described_task, resolve_task
from spoton.tasks.load_files import load_task_file, load_task_folder
from spoton.tasks.metrics import METRICS, compute
from spoton.tasks.own_tasks import read_definition
from spoton.tasks.task import Task

__all__ = [
    "METRICS",
    "DataSpec",
    "Example",
    "Task",
    "TaskInfo",
    "compute",
    "described_task",
    "list_tasks",
    "load_hub_task",
    "load_task",
    "load_task_file",
    "load_task_folder",
    "read_definition",
    "resolve_task",
]
