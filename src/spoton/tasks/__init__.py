"""What is asked: tasks, where their examples come from, how answers are scored. No models, no tensors."""

from spoton.tasks.catalog import TaskInfo, list_tasks, load_task
from spoton.tasks.example import Example
from spoton.tasks.files import load_task_file
from spoton.tasks.hub import load_hub_task
from spoton.tasks.load import described_task, resolve_task
from spoton.tasks.metrics import METRICS, compute
from spoton.tasks.own_tasks import read_definition
from spoton.tasks.task import Task

__all__ = [
    "METRICS",
    "Example",
    "Task",
    "TaskInfo",
    "compute",
    "described_task",
    "list_tasks",
    "load_hub_task",
    "load_task",
    "load_task_file",
    "read_definition",
    "resolve_task",
]
