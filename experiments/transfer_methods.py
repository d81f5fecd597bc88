"""Which way of ranking and combining sources is best? Every method on the same rows, at one total budget.

All arms of a task, size and seed share rows, recipe and validation; the seed also draws the rows. Tuning from scratch
takes `--steps` steps. Every other arm has the same number of steps: it pays for its ranking (a key, or the passes of a
trial) and divides the rest among the prompts that it tunes. `ensemble` gives each of its three prompts a third. Each
arm is scored once on the test split.

Each cell has its own JSON file, written last. Finished cells never run again, a folder with cells of another recipe or
model is refused, and a killed cell resumes from its last evaluation. Several processes may work at the same time: one
of them runs all arms of a task, size and seed, since these share the run from scratch. `mixture` reads rows of sources
in the folder `SPOTON_DATA_DIR`. `--table` prints the results so far.

    python -m experiments.transfer_methods --tasks news_sentiment,disambiguation_qa --sizes 100,250 --seeds 0,1,2
    python -m experiments.transfer_methods --table
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.cells import cell_parser, claimed, facts_of, model_of, require_alike, require_same
from spoton import (
    PromptLibrary,
    Recipe,
    SoftPrompt,
    SpotonError,
    evaluate,
    load_task,
    starter_library,
)
from spoton.evaluation.score import default_mode
from spoton.models import FrozenModel
from spoton.prompts import ensemble_of
from spoton.tasks import Task
from spoton.transfer.adapt import target_sources
from spoton.transfer.arms import TransferPlan, ranked, transferred
from spoton.transfer.combining.best_of_top_k import best_of_top_k
from spoton.transfer.kept_runs import KeptRuns, Run
from spoton.transfer.sources import Ranking
from spoton.transfer.speed import MeanInterval, speed
from spoton.tuning.record import versions, write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "transfer_methods"
VALIDATION, TEST = 100, 200
ARMS: dict[str, TransferPlan | None] = {
    "scratch": None,
    "similarity, best": TransferPlan(),
    "displacement, best": TransferPlan(rank="displacement"),
    "trial, best": TransferPlan(rank="trial"),
    "trial, average": TransferPlan("weighted-average", "trial", 3),
    "trial, halving": TransferPlan("halving", "trial", 4),
    "trial, task vectors": TransferPlan("task-vectors", "trial", 3),
    "trial, learned mix": TransferPlan("learned-mix", "trial", 3),
    "trial, multiplicative": TransferPlan("multiplicative", "trial", 3),
    "trial, mixture": TransferPlan("mixture", "trial", 2),
    "trial, ensemble": TransferPlan("best-of-top-k", "trial", 3),
    "trial, untuned": TransferPlan(rank="trial"),
}
NEAREST = "similarity, best"
"""The default of `adapt`."""


class Bench:
    """One model, its recipe and the folder of results.

    Args:
        model: The model that every arm starts from.
        cells: Folder of the results.
        recipe: The recipe; its steps are the budget of every arm.
        libraries: The libraries of sources.
    """

    def __init__(
        self, model: FrozenModel, cells: Path, recipe: Recipe, libraries: Sequence[PromptLibrary]
    ) -> None:
        self.model, self.cells, self.recipe, self.libraries = model, cells, recipe, libraries

    def run(self, task: Task, size: int, seed: int, arms: Sequence[str]) -> None:
        """Runs the arms of one task, size and seed that have no result, unless another process works on them."""
        work = self.cells / "work" / f"{task.name}.{size}"
        work.mkdir(parents=True, exist_ok=True)
        require_alike(self.cells, self.planned)
        # There is no such file: the arms have results, and they share runs, so they are claimed together.
        with claimed(work / f"{seed}.arms") as mine:
            if mine:
                self.run_arms(task, size, seed, arms, work)

    def planned(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a record has to hold, see `require_alike`."""
        recipe = self.recipe.changed(seed=record["seed"])
        return {"recipe": recipe.model_dump(), "model_fingerprint": self.model.fingerprint}

    def run_arms(self, task: Task, size: int, seed: int, arms: Sequence[str], work: Path) -> None:
        """Runs the arms that have no result; their runs are kept in the folder `work`."""
        runs = KeptRuns(self.model, task, default_mode(task), work, lambda event: None)
        recipe = self.recipe.changed(seed=seed)
        known = facts_of(self.model, task, recipe)
        for arm in arms:
            path = self.cells / f"{task.name}.{size}.{arm.replace(', ', '_').replace(' ', '-')}.{seed}.json"
            if path.exists():
                require_same(path, known)
                continue
            began = time.process_time()
            try:
                found = self.cell(runs, recipe, arm)
            except SpotonError as error:  # for example, no source has a positive similarity
                found = {"failed": str(error)}
            facts = {
                "task": task.name, "size": size, "seed": seed, "arm": arm, "metric": task.metric,
                "cpu_seconds": time.process_time() - began, "versions": versions(),
            }  # fmt: skip
            write_record(path, known | facts | found)
            print(path.name, found.get("test", found.get("failed")), file=sys.stderr, flush=True)

    def cell(self, runs: KeptRuns, recipe: Recipe, arm: str) -> dict[str, Any]:
        """Runs one arm and returns its result."""
        how = ARMS[arm]
        if arm.endswith("untuned"):
            return self.untuned(runs, recipe)
        scratch = runs.tuned("scratch", recipe)
        if how is None:
            return self.scored(runs, scratch.prompt, scratch.history) | {"steps": recipe.steps, "probe": 0}
        sources = target_sources(self.model, runs.task, self.libraries, how.rank)
        how.require_budget(recipe, len(sources), 1)
        ranking = ranked(runs, scratch, sources, recipe, how)
        if not arm.endswith("ensemble"):
            found = transferred(runs, scratch, ranking, recipe, how)
            scores = self.scored(runs, found.transfer.prompt, found.curve)
            return scores | ranking_facts(found.ranking) | {"steps": found.taken}
        each = (recipe.steps - ranking.cost.steps) // len(ranking)
        tuned = [
            runs.tuned(one.name, recipe.changed(steps=each), one.value, one.parents)
            for one in best_of_top_k(ranking, recipe.length)
        ]
        steps = ranking.cost.steps + each * len(tuned)
        return self.together(runs, tuned) | ranking_facts(ranking) | {"steps": steps}

    def untuned(self, runs: KeptRuns, recipe: Recipe) -> dict[str, Any]:
        """Returns the result of a trial's first source, untuned; this arm does not tune from scratch either."""
        sources = target_sources(self.model, runs.task, self.libraries, "trial")
        ranking = ranked(runs, None, sources, recipe, TransferPlan(rank="trial"))
        (best,) = ranking
        run = runs.untuned("untuned", recipe, best.prompt.value, best.parents(1.0))
        scores = self.scored(runs, run.prompt, run.history)
        return scores | ranking_facts(ranking) | {"steps": ranking.cost.steps}

    def scored(self, runs: KeptRuns, prompt: SoftPrompt, history: list[dict[str, float]]) -> dict[str, Any]:
        """Returns the scores of a prompt and the evaluations of its run."""
        looks = [look for look in history if "validation" in look]
        test = runs.test("test", prompt, self.recipe.max_input_tokens)["test"]
        validation = prompt.card.scores["validation"][runs.task.metric]
        return {"validation": validation, "test": test, "history": looks}

    def together(self, runs: KeptRuns, tuned: Sequence[Run]) -> dict[str, Any]:
        """Returns the scores of an ensemble."""
        if len(tuned) == 1:
            return self.scored(runs, tuned[0].prompt, tuned[0].history)
        joint = ensemble_of([run.prompt for run in tuned])
        validation = evaluate(self.model, joint, runs.task.validation, runs.task).score
        return {
            "validation": validation,
            "test": runs.test("test", joint, self.recipe.max_input_tokens)["test"],
            "history": [],
        }


def ranking_facts(ranking: Ranking) -> dict[str, Any]:
    """Returns what was retrieved, and its cost."""
    retrieved = [one.to_json() for one in ranking]
    return {"retrieved": retrieved, "cost": asdict(ranking.cost), "probe": ranking.cost.steps}


def interval(steps: int) -> int:
    """Returns the largest number of steps between evaluations at which four sources are halved to one in a budget.

    A trial leaves at least half of the budget. Four prompts take the first interval, two the second, and the last one
    needs a step more.
    """
    return max(1, (steps - steps // 2 - 1) // (4 + 2))


def table(cells: Path) -> str:
    """Returns all results as Markdown: test score of each arm by task and size, and its gain over scratch.

    The gain, and the difference to the nearest key (`NEAREST`), compare cells of the same task, size and seed. They are
    means over tasks with the interval over tasks: two sizes of one task are not two independent results.
    """
    found: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(cells.glob("*.json")):
        cell = json.loads(path.read_text())
        found[cell["arm"], cell["task"], cell["size"]][cell["seed"]] = cell
    columns = sorted({(task, size) for _, task, size in found})
    heads = [f"{task}, {size} rows" for task, size in columns]
    lines = [
        f"| arm | {' | '.join(heads)} | gain over scratch | minus nearest key | steps to scratch's best |"
    ]
    lines.append("|" + "---|" * (len(columns) + 4))
    for arm in ARMS:
        if not any(name == arm for name, _, _ in found):
            continue
        shown = [_mean([c["test"] for c in found[arm, t, n].values() if "test" in c]) for t, n in columns]
        gain, ahead = (_over_tasks(_pairs(found, columns, base, arm)) for base in ("scratch", NEAREST))
        gain, ahead = "" if arm == "scratch" else gain, "" if arm in ("scratch", NEAREST) else ahead
        arrival = _arrival(_pairs(found, columns, "scratch", arm))
        lines.append(f"| {arm} | {' | '.join(shown)} | {gain} | {ahead} | {arrival} |")
    return "\n".join(lines)


def _pairs(
    found: Mapping[tuple[str, str, int], Mapping[int, dict[str, Any]]],
    columns: Sequence[tuple[str, int]],
    base: str,
    arm: str,
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the tested cells of two arms that have the same task, size and seed."""
    return [
        (before[seed], cell)
        for task, size in columns
        for before in [found.get((base, task, size), {})]
        for seed, cell in found.get((arm, task, size), {}).items()
        if "test" in cell and "test" in before.get(seed, {})
    ]


def _over_tasks(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Returns the mean difference over tasks, its 95 % interval (Student's t), and the number of tasks."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for before, cell in pairs:
        by_task[cell["task"]].append(cell["test"] - before["test"])
    if not by_task:
        return "none"
    found = MeanInterval.of([statistics.mean(one) for one in by_task.values()])
    ends = "" if found.low is None else f" [{found.low:.1f}, {found.high:.1f}]"
    return f"{found.mean:+.1f}{ends}, {found.n} tasks"


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "none"
    seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{seeds}"


def _arrival(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Returns the steps, including the ranking's, until an arm reaches scratch's best score, and in how many cells."""
    known = [(before, cell) for before, cell in pairs if cell["history"]]
    arrivals = []
    for before, cell in known:
        reached = speed([before["history"]], [cell["history"]], [cell["probe"]])
        if reached is not None and reached.transfer_steps is not None:
            arrivals.append(reached.transfer_steps.mean)
    return f"{statistics.mean(arrivals):.0f} ({len(arrivals)} of {len(known)})" if arrivals else "never"


def main() -> None:
    """Runs the missing cells, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument("--tasks", default="news_sentiment,disambiguation_qa", help="targets, with commas")
    parser.add_argument("--sizes", default="100,250", help="training rows, with commas")
    parser.add_argument("--seeds", default="0,1,2", help="with commas")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="only these")
    parser.add_argument("--library", help="folder of prompts; not given: the starter library")
    parser.add_argument("--model", default="smollm2-135m", help="the frozen model")
    parser.add_argument("--steps", type=int, default=100, help="budget of an arm")
    parser.add_argument("--evaluate-every", type=int, help="not given: so often that halving fits the budget")
    parser.add_argument("--validation", type=int, default=VALIDATION, help="rows that choose checkpoints")
    parser.add_argument("--test", type=int, default=TEST, help="rows that are scored once")
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.cells))
        return
    libraries = [PromptLibrary(arguments.library)] if arguments.library else [starter_library()]
    recipe = Recipe.preset(
        "decoder", steps=arguments.steps, evaluate_every=arguments.evaluate_every or interval(arguments.steps)
    )
    bench = Bench(model_of(arguments, arguments.model), arguments.cells, recipe, libraries)
    for seed in map(int, arguments.seeds.split(",")):  # outermost: stopped early, all targets have some seeds
        for name in arguments.tasks.split(","):
            whole = load_task(name, data_dir=arguments.data_dir, form="natural")
            for size in map(int, arguments.sizes.split(",")):
                task = whole.limited(
                    train=size, validation=arguments.validation, test=arguments.test, seed=seed
                )
                bench.run(task, size, seed, arguments.arms)


if __name__ == "__main__":
    main()
