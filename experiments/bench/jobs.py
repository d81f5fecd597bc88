"""Measures what the engine saves a user: runs of the demo and the starter library, with it and by concatenation.

Models that the engine does not support run by plain concatenation: the prompt in front of every row, rows padded to
the longest, logits at target positions only. Both take the same steps and evaluations, in turns.

    python -m experiments.bench.jobs
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from experiments.bench.machine import describe
from experiments.bench.ratios import pairwise_ratio
from experiments.starter_library import RECIPE, VALIDATION
from spoton import Recipe, load_model, load_task
from spoton.models import FrozenModel
from spoton.models.concatenation import ConcatenationEngine
from spoton.tasks import Task
from spoton.tuning import Job, tune_together
from spoton.tuning.record import write_record

RESULT = Path(__file__).parents[2] / "docs" / "experiments" / "jobs.json"
ENGINE, PLAIN = "engine", "concatenation"


def runs() -> dict[str, tuple[Task, Recipe, int]]:
    """Returns task, recipe and seeds of each kind of run, cut to one evaluation and the steps before it."""
    demo = Recipe.preset("decoder")
    return {
        "demo": (
            load_task("news_sentiment").limited(train=100, validation=50),
            demo.changed(steps=demo.evaluate_every),
            3,
        ),
        "starter library": (
            load_task("movie_sentiment").limited(validation=VALIDATION // 2),
            RECIPE.changed(steps=RECIPE.evaluate_every // 2, evaluate_every=RECIPE.evaluate_every // 2),
            1,
        ),
    }


def models() -> dict[str, FrozenModel]:
    """Returns the embedded model twice, once on each engine."""
    fast, plain = load_model(), load_model()
    plain.derived["engine"] = ConcatenationEngine(plain)  # for this comparison only
    return {ENGINE: fast, PLAIN: plain}


def work(model: FrozenModel, task: Task, recipe: Recipe, seeds: int) -> Callable[[], list[float]]:
    """Returns a function that tunes one prompt per seed in the same passes, and returns the last losses."""

    def run() -> list[float]:
        jobs = [Job(task, recipe.changed(seed=seed)) for seed in range(seeds)]
        found = tune_together(model, jobs)
        return [
            next(entry["loss"] for entry in reversed(one.history) if "loss" in entry)
            for one in found
            if not isinstance(one, Exception)
        ]

    return run


def main() -> None:
    """Measures both kinds of run; writes the record and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    both, record = models(), {"machine": describe(allocator_tuned=False), "rounds": arguments.rounds}
    lines = ["| run | seconds | by concatenation | times | last loss |", "|---|---|---|---|---|"]
    for name, (task, recipe, seeds) in runs().items():
        measured, losses = [], {}
        for number in range(arguments.rounds):
            sys.stderr.write(f"{name}, round {number + 1}/{arguments.rounds}\n")
            found = {}
            for arm, model in both.items():
                wall, cpu = time.perf_counter(), time.process_time()
                losses[arm] = work(model, task, recipe, seeds)()
                found[arm] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            measured.append(found)
        ratio = pairwise_ratio(measured, PLAIN, ENGINE)
        assert ratio is not None
        seconds = {arm: sorted(one[arm]["wall"] for one in measured)[len(measured) // 2] for arm in both}
        record[name] = {
            "steps": recipe.steps, "seeds": seeds, "seconds": seconds, "last_losses": losses, "rounds": measured,
            "times": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
        }  # fmt: skip
        lines.append(
            f"| {name} | {seconds[ENGINE]:.1f} | {seconds[PLAIN]:.1f} | **{ratio.median:.2f}** "
            f"({ratio.low:.2f}-{ratio.high:.2f}) | {losses[ENGINE][0]:.3f}, {losses[PLAIN][0]:.3f} |"
        )
    write_record(RESULT, record)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
