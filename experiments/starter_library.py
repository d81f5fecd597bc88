"""Tunes the prompts of the starter library: sources for SmolLM2-135M that ship with spoton.

Every source has the default recipe with batches of 16 and its own number of steps. A finished source is not tuned
again, a killed one resumes from its last evaluation, and several processes may work at the same time. Rows of tasks
that are not on PyPI come from a folder, as for the catalog. A prompt goes into the package if it beats the best
constant answer on the test rows by at least five points and the terms of its data allow it. The record of every
source, shipped or not, goes to `docs/experiments/starter_library/`.

`news_sentiment` and `disambiguation_qa` are left out on purpose: they are the targets of the demo and of the
transfer experiment.

    python -m experiments.starter_library --data-dir data --threads 1
    python -m experiments.starter_library --table
    python -m experiments.starter_library --families
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.cells import cell_parser, claimed, model_of
from spoton import PromptLibrary, Recipe, SoftPrompt, evaluate, starter_library, tune
from spoton.evaluation.intervals import score_intervals
from spoton.models import FrozenModel
from spoton.tasks import Task
from spoton.tasks.catalog import load_task
from spoton.tasks.majority import best_constant_score
from spoton.transfer.ranking.displacement import displacement
from spoton.transfer.similarity import similarity
from spoton.tuning.record import write_record

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "src" / "spoton" / "prompts" / "starter"
RECORDS = ROOT / "docs" / "experiments" / "starter_library"
# The default recipe, so that keys are comparable with those of default targets; only steps and examples are more.
RECIPE = Recipe.preset("decoder", batch_size=16)
VALIDATION, TEST = 150, 400
LEARNED = 5.0
"""A source counts as learned if it is at least this many points above the best constant answer."""


@dataclass(frozen=True)
class Source:
    """A task of the starter library.

    Attributes:
        task: Its name in the catalog.
        steps: Number of tuning steps.
        tokens: Longest input; passages need more than sentences.
        forbids: Why the terms of the data keep its prompt out of the package; empty if they do not.
    """

    task: str
    steps: int
    tokens: int = 96
    forbids: str = ""


SOURCES = (
    Source("sst2", 200), Source("mnli", 1000), Source("trec", 200), Source("product_sentiment", 160),
    Source("ag_news", 120), Source("medical_subject", 200), Source("tweet_eval_emotion", 200),
    Source("snli", 400), Source("qqp", 600), Source("qnli", 400), Source("tweet_eval_hate", 300),
    Source("boolq", 240, tokens=192), Source("mrpc", 300), Source("cola", 300), Source("stsb", 400),
    Source("subj", 120), Source("tweet_eval_offensive", 160), Source("mpqa", 120), Source("movie_sentiment", 160),
    Source("tweet_sentiment", 160), Source("cr", 120), Source("tweet_eval_irony", 160), Source("scitail", 120),
    Source("rotten_tomatoes", 160),
    Source("sick", 200, forbids="CC BY-NC-SA: not for commercial use"),
)  # fmt: skip


def tuned_source(
    model: FrozenModel, task: Task, recipe: Recipe, checkpoint: Path
) -> tuple[SoftPrompt, dict[str, Any]]:
    """Returns a prompt, rounded to float16, with its test scores on its card, and its record for the table."""
    began = time.process_time()
    bare = evaluate(model, None, task.test, task, max_input_tokens=recipe.max_input_tokens)
    tuned = tune(model, task, recipe, checkpoint=checkpoint, resume=True, on_event=_report)
    prompt = tuned.prompt.halved()
    test = evaluate(model, prompt, task.test, task)
    card = prompt.card
    scores = card.scores | {"test": test.scores}
    if test.uncalibrated is not None:
        scores["test_uncalibrated"] = test.uncalibrated.scores
    card = card.model_copy(update={"scores": scores, "license": task.license})
    interval = score_intervals(task.metrics, test.predictions, task.test, task.labels)[task.metric]
    record = {
        "task": task.name, "family": task.family, "rows": task.source, "license": task.license, "metric": task.metric,
        "splits": task.splits(), "labels": task.labels, "steps": tuned.steps, "best_step": card.best_step,
        "majority": best_constant_score(task, task.test), "bare": bare.scores[task.metric],
        "test": test.scores[task.metric], "interval": interval.to_json(),
        "uncalibrated": None if test.uncalibrated is None else test.uncalibrated.scores[task.metric],
        "all_scores": scores, "evaluations": [entry for entry in tuned.history if "validation" in entry],
        "losses": [round(entry["loss"], 4) for entry in tuned.history if "loss" in entry],
        "message": tuned.message, "recipe": card.recipe, "data_hash": card.data_hash, "versions": card.versions,
        "model_fingerprint": card.model_fingerprint, "dtype": card.dtype, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip
    return replace(prompt, card=card), record


def shipped(source: Source, record: dict[str, Any]) -> str:
    """Returns why a source's prompt stays out of the package; empty if it goes in."""
    gain = record["test"] - record["majority"]
    if gain < LEARNED:
        return f"{gain:+.1f} points to the best constant answer"
    return source.forbids


def tune_missing(arguments: argparse.Namespace) -> None:
    """Tunes every source that has no record and that no other process works on."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    library, model = PromptLibrary(FOLDER), model_of(arguments)
    for source in _wanted(arguments.tasks):
        path = RECORDS / f"{source.task}.json"
        with claimed(path) as mine:
            if not mine:
                continue
            task = load_task(source.task, data_dir=arguments.data_dir, form="natural")
            prompt, record = tuned_source(
                model,
                task.limited(validation=VALIDATION, test=TEST),
                RECIPE.changed(
                    steps=source.steps,
                    evaluate_every=max(40, min(100, source.steps // 4)),
                    max_input_tokens=source.tokens,
                ),
                path.with_suffix(".checkpoint"),
            )
            record["left_out"] = shipped(source, record)
            if not record["left_out"]:
                library.add(prompt, replace=True)
            write_record(path, record)
        print(f"{source.task}: {record['test']:.1f} {record['left_out']}", file=sys.stderr, flush=True)


def table(folder: Path) -> str:
    """Returns the records as a Markdown table, in the order of `SOURCES`."""
    lines = [
        "| source | family | metric | steps | constant | bare model | test, 95 % | raw | CPU min | shipped |",
        "|---" * 10 + "|",
    ]
    for source in SOURCES:
        path = folder / f"{source.task}.json"
        if not path.exists():
            continue
        of = json.loads(path.read_text())
        ends = "" if of["interval"] is None else f" ({of['interval'][0]:.1f} to {of['interval'][1]:.1f})"
        raw = "" if of["uncalibrated"] is None else f"{of['uncalibrated']:.1f}"
        cells = (
            of["task"], of["family"], of["metric"], of["steps"], f"{of['majority']:.1f}", f"{of['bare']:.1f}",
            f"{of['test']:.1f}{ends}", raw, f"{of['cpu_seconds'] / 60:.0f}",
            f"no: {of['left_out']}" if of["left_out"] else "yes",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def families(library: PromptLibrary) -> str:
    """Returns the two prompts nearest to each, by keys and by keys minus their starts, as Markdown.

    A nearest prompt of the same family is bold.
    """
    prompts = [library.get(entry.name) for entry in library.list()]
    prompts.sort(key=lambda prompt: (prompt.card.family, prompt.card.name))
    matrices = [
        {one.card.name: one.key for one in prompts if one.key is not None},
        {one.card.name: found for one in prompts if (found := displacement(one)) is not None},
    ]
    family = {one.card.name: one.card.family for one in prompts}
    lines = ["| prompt | family | nearest keys | nearest keys minus starts |", "|---" * 4 + "|"]
    for name in family:
        row = [_nearest(name, found, family) for found in matrices]
        lines.append(f"| {name} | {family[name]} | {' | '.join(row)} |")
    return "\n".join(lines)


def _nearest(name: str, matrices: Mapping[str, Tensor], family: Mapping[str, str]) -> str:
    near = {
        other: similarity(matrices[name], found, "average_tokens")
        for other, found in matrices.items()
        if other != name
    }
    words = [f"{other} {near[other]:.2f}" for other in sorted(near, key=lambda other: -near[other])[:2]]
    first = words[0].split()[0]
    return ", ".join([f"**{words[0]}**" if family[first] == family[name] else words[0], *words[1:]])


def _wanted(names: list[str]) -> Iterator[Source]:
    known = {source.task: source for source in SOURCES}
    for name in names or known:
        if name not in known:
            raise SystemExit(f"{name} is no source of the starter library. Choose from: {', '.join(known)}.")
        yield known[name]


def _report(event: Any) -> None:
    if event.validation is not None:
        print(f"  {event}", file=sys.stderr, flush=True)


def main() -> None:
    """Tunes sources, or prints the table."""
    parser = cell_parser(__doc__)
    parser.add_argument("tasks", nargs="*", help="only these")
    parser.add_argument(
        "--families", action="store_true", help="print which prompts are nearest to each other"
    )
    arguments = parser.parse_args()
    if arguments.families:
        sys.stdout.write(families(starter_library()) + "\n")
    elif arguments.table:
        sys.stdout.write(table(RECORDS) + "\n")
    else:
        tune_missing(arguments)


if __name__ == "__main__":
    main()
