"""Which ranking finds the best source? Leave-one-out over a library: each prompt's task is a target for all others.

The truth of a pair is the source's score on the target's validation split: untuned and calibrated (`--steps 0`), or
after some steps of tuning. It is computed once per pair, and every ranking is compared with it:

- nDCG over the whole ranking, where relevance is the score above the worst source's;
- regret@1 and @3: percent of the best source's score that is lost by trying only the first 1 or 3;
- share of the oracle's gain: (first source - the task's own text) / (best source - the task's own text), clipped to
  [-1, 1], over targets where a source helps;
- cost: the optimizer steps that the passes without a gradient (or the key) are worth.

Sources that share sentences with the target are left out of the table. The target's key is that of its own prompt in
the library, read after 20 steps of 16 examples of all its rows; a user's probe has 8, of the rows that there are. So
the keys are judged better than they will be.

Each truth and each ranking has its own JSON file; finished ones do not run again. Those of other rows or of another
recipe are refused: the published ones have prompts of 32 tokens.

    python -m experiments.ranking --data-dir data
    python -m experiments.ranking --table
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import ndcg_score

from experiments.cells import require_same
from spoton import PromptLibrary, Recipe, SoftPrompt, load_model, load_task, starter_library
from spoton.evaluation.form import form_of
from spoton.evaluation.score import default_mode
from spoton.models import FrozenModel
from spoton.prompts.initial import from_prompt
from spoton.tasks import Task
from spoton.tasks.catalog import tasks_with_texts_of
from spoton.transfer import SIMILARITIES, retrieve, trial
from spoton.transfer.adapt import target_sources
from spoton.transfer.kept_runs import KeptRuns
from spoton.transfer.ranking.trial import TEXT
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.record import versions, write_record

RESULTS = Path(__file__).parents[1] / "docs" / "experiments" / "ranking"


def main() -> None:
    """Runs the missing parts, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", help="folder of prompts; not given: the starter library")
    parser.add_argument("--targets", nargs="*", help="names of prompts; not given: all")
    parser.add_argument("--model", default="smollm2-135m", help="the frozen model")
    parser.add_argument("--data-dir", help="where rows of catalog tasks are")
    parser.add_argument("--size", type=int, default=100, help="training rows of a target")
    parser.add_argument("--validation", type=int, default=200, help="rows by which pairs are judged")
    parser.add_argument("--steps", type=int, default=0, help="steps of tuning from each source; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of trials and tuning")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.results, arguments.steps))
        return
    torch.set_num_threads(arguments.threads)
    library = PromptLibrary(arguments.library) if arguments.library else starter_library()
    model = load_model(arguments.model)
    for entry in library.list():
        if arguments.targets and entry.name not in arguments.targets:
            continue
        whole = load_task(entry.card.task, form=form_of(entry.card), data_dir=arguments.data_dir)
        task = whole.limited(train=arguments.size, validation=arguments.validation)
        recipe = Recipe.preset("decoder", seed=arguments.seed, steps=max(1, arguments.steps))
        one_target(
            model,
            library,
            library.get(entry.name),
            task,
            recipe,
            arguments.results / entry.name,
            arguments.steps,
        )


def one_target(
    model: FrozenModel, library: PromptLibrary, prompt: SoftPrompt, task: Task, recipe: Recipe, folder: Path, steps: int
) -> None:  # fmt: skip
    """Computes the truth of every pair of one target, and every ranking of its sources."""
    runs = KeptRuns(model, task, default_mode(task), folder / "work", lambda event: None)
    sources = target_sources(model, task, [library], "trial")
    values: dict[str, torch.Tensor] = {TEXT: starting_prompt(model, task, recipe.changed(init="task"))[0]}
    values |= {entry.name: place.get(entry.name).value for place, entry in sources}

    def truth() -> dict[str, Any]:
        scores = {}
        for name, value in values.items():
            if steps:
                run = runs.tuned(name, recipe, from_prompt(value, recipe.length))
            else:
                run = runs.untuned(name, recipe, value, ())
            scores[name] = run.validation
            print(f"{task.name} from {name}: {run.validation:.1f}", file=sys.stderr, flush=True)
        return {"scores": scores}

    def ranking(order: list[str], **cost: int) -> dict[str, Any]:
        return {"order": order, "cost": cost}

    kept(folder / f"truth-{steps}.json", task, recipe, truth)
    recipe = recipe.changed(steps=1)  # no ranking depends on them, so that both truths share the rankings
    if prompt.key is not None:
        keyed = [pair for pair in sources if pair[1].has_key]
        for start, words in ((None, "key"), (prompt.start, "displacement")):
            if words == "displacement" and start is None:
                continue
            for metric in SIMILARITIES:
                order = [one.name for one in retrieve(prompt.key, keyed, len(keyed), metric, start=start)]
                path = folder / f"ranking-{words}-{metric}.json"
                kept(path, task, recipe, partial(ranking, order, steps=recipe.key_step, passes=0))

    def tried() -> dict[str, Any]:
        found = trial(model, task, sources, len(values), recipe, folder=runs.folder)
        return ranking([one.name for one in found], steps=found.cost.steps, passes=found.cost.passes)

    kept(folder / "ranking-trial.json", task, recipe, tried)


def kept(path: Path, task: Task, recipe: Recipe, make: Callable[[], dict[str, Any]]) -> None:
    """Writes a result, unless it exists; refuses an existing result of other rows or of another recipe."""
    facts = {"data_hash": task.data_hash(), "recipe": recipe.model_dump()}
    if path.exists():
        require_same(path, facts, "--results")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, make() | facts | {"versions": versions()})


def judged(scores: dict[str, float], order: list[str]) -> dict[str, float]:
    """Returns how good an order of sources is, given their scores.

    Args:
        scores: Score by source, including the score of the task's own text.
        order: Names, best first; the task's own text, if included, is left out.
    """
    order = [name for name in order if name != TEXT]
    found = [scores[name] for name in order]
    text, best = scores[TEXT], max(found)
    relevance = [score - min(found) for score in found]
    ranks = [[float(len(found) - place) for place in range(len(found))]]
    ndcg = float(ndcg_score([relevance], ranks)) if len(found) > 1 and any(relevance) else math.nan
    share = (found[0] - text) / (best - text) if best > text else math.nan
    return {
        "ndcg": ndcg,
        "regret@1": 100 * (best - found[0]) / best if best > 0 else math.nan,
        "regret@3": 100 * (best - max(found[:3])) / best if best > 0 else math.nan,
        "share": min(1.0, max(-1.0, share)) if math.isfinite(share) else math.nan,
    }


def table(results: Path, steps: int = 0) -> str:
    """Returns all rankings as Markdown: means over the targets with a truth.

    Args:
        results: The folder of the results.
        steps: Steps of tuning of the truth.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for truth in sorted(results.glob(f"*/truth-{steps}.json")):
        with_same_texts = tasks_with_texts_of(truth.parent.name)
        scores = json.loads(truth.read_text())["scores"]
        for path in sorted(truth.parent.glob("ranking-*.json")):
            record = json.loads(path.read_text())
            order = [name for name in record["order"] if name not in with_same_texts]
            name = path.stem.removeprefix("ranking-")
            rows.setdefault(name, []).append(judged(scores, order) | record["cost"])
    lines = [
        "| ranking | targets | nDCG | regret@1, % | regret@3, % | share of the best source's gain | cost in steps |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in rows.items():
        ndcg, first, third, share, cost = (
            _mean(found, what) for what in ("ndcg", "regret@1", "regret@3", "share", "steps")
        )
        lines.append(
            f"| {name} | {len(found)} | {ndcg:.2f} | {first:.1f} | {third:.1f} | {100 * share:.0f} % | {cost:.0f} |"
        )
    return "\n".join(lines)


def _mean(found: list[dict[str, float]], what: str) -> float:
    values = [one[what] for one in found if math.isfinite(one[what])]
    return statistics.mean(values) if values else math.nan


if __name__ == "__main__":
    main()
