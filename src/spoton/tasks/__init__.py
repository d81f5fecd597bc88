"""What is asked: tasks, where their examples come from, how answers are scored. No models, no tensors."""

from spoton.tasks.task import Example, Task

__all__ = ["Example", "Task"]
