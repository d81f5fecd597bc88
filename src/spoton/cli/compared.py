"""Compares the answers of several prompts to the same rows, row by row, for `spoton evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from spoton.cli.output import table

if TYPE_CHECKING:
    from spoton.tasks import Example, Task

Answers = Sequence[str | None]


def comparison(
    names: Sequence[str], before: Answers, after: Answers, examples: Sequence[Example], task: Task
) -> dict[str, Any]:
    """Returns how far the second answers are ahead of the first on the same rows, with paired intervals.

    Args:
        names: Names of the first and the second answers.
        before: The first answers, one per example.
        after: The second answers.
        examples: The examples that were answered.
        task: Gives metrics and labels.
    """
    from spoton.evaluation.intervals import agreement, difference_intervals, mcnemar
    from spoton.tasks.metrics import compute

    targets = [example.target for example in examples]
    scores = [
        compute(task.metrics, answers, targets, task.labels, examples=examples) for answers in (before, after)
    ]
    intervals = difference_intervals(task.metrics, before, after, examples, task.labels)
    _, gained, lost, _ = agreement(before, after, examples)
    independent = not any(example.question for example in examples)
    return {
        "prompt": names[1], "than": names[0], "scores": scores[1],
        "differences": {
            name: {
                "difference": scores[1][name] - scores[0][name], "interval": interval.to_json(),
                "method": interval.method, "problem": interval.problem or None,
            }
            for name, interval in intervals.items()
        },
        # Only for label words is a correct answer equal to its target.
        "only_this_right": gained if task.labels else None, "only_other_right": lost if task.labels else None,
        "mcnemar_p": mcnemar(gained, lost) if task.labels and independent else None,
    }  # fmt: skip


def told(found: Mapping[str, Any]) -> str:
    """Returns a difference in a metric as text: `+3.2 (95 % Newcombe: -0.4 to 6.8)`."""
    ends = found["interval"]
    bounds = (
        f"95 % {found['method']}: {ends[0]:+.1f} to {ends[1]:+.1f}"
        if ends
        else f"no interval: {found['problem']}"
    )
    return f"{found['difference']:+.1f}  ({bounds})"


def compared_table(compared: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Returns a table with one row per prompt and metric."""
    columns = (
        "prompt",
        "metric",
        "score",
        f"against {compared[0]['than']}",
        "only it is right",
        "only the other",
        "p",
    )
    rows = []
    for one in compared:
        for place, (name, difference) in enumerate(one["differences"].items()):
            p = one["mcnemar_p"]
            ends = (one["only_this_right"], one["only_other_right"], None if p is None else f"{p:.3f}")
            # The counts of correct rows belong to accuracy only.
            shown = ends if name == "accuracy" else (None, None, None)
            rows.append(
                (one["prompt"] if place == 0 else "", name, one["scores"][name], told(difference), *shown)
            )
    return table(columns, rows, numbers=("score", *columns[4:]))
