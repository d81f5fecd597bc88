"""What decides a run: a change of any part is another run, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spoton.evaluation.score import Mode
from spoton.tasks import Task
from spoton.tuning.identity import what_decides
from tests.tiny import tiny, toy_task

TASK = toy_task(("yes", "maybe", "no"))


def test_the_same_rows_read_again_are_the_same_run() -> None:
    assert what_decides(tiny("llama"), TASK, "rank") == what_decides(
        tiny("llama"), toy_task(TASK.labels), "rank"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("no", "maybe", "yes")}, {"metrics": ("macro_f1",)}, {"train": TASK.train[1:]},
        {"validation": TASK.validation[1:]},
    ],
)  # fmt: skip
def test_other_rows_labels_or_metrics_are_another_run(change: dict[str, Any]) -> None:
    other: Task = replace(TASK, **change)
    assert what_decides(tiny("llama"), TASK, "rank") != what_decides(tiny("llama"), other, "rank")


@pytest.mark.parametrize("mode", ["generate", None])
def test_another_evaluation_is_another_run(mode: Mode | None) -> None:
    assert what_decides(tiny("llama"), TASK, "rank") != what_decides(tiny("llama"), TASK, mode)


def test_another_model_is_another_run() -> None:
    assert what_decides(tiny("llama"), TASK, "rank") != what_decides(tiny("gpt2"), TASK, "rank")
