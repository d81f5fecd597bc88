"""How the wording of a task changes the score of the model: forms, a chat, and a line that names the choices.

Scores SmolLM2-135M-Instruct without a prompt, by rank, on the first validation rows of tasks of several families, each
in several wordings; then with a prompt of 60 steps of the default recipe in the wordings that matter. A cell is one
task in one wording, and one seed where a prompt is tuned. Cells are in `docs/experiments/wording`. Finished cells never
run again; a folder with cells of another recipe is refused.

It says nothing about other models: label words and choices that help one model may hurt another.

    python -m experiments.wording --data-dir data --threads 1 --dtype bfloat16
    python -m experiments.wording --table
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.cells import cell_parser, claimed, model_of, require_alike, spread
from spoton import Recipe, Task, load_task, tune
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.form import chat_of
from spoton.evaluation.intervals import score_intervals
from spoton.evaluation.score import label_log_likelihoods
from spoton.models import FrozenModel
from spoton.tasks.chat import in_chat
from spoton.tasks.majority import best_constant_score
from spoton.tasks.metrics import compute
from spoton.tasks.task_info import Form
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "wording"
TASKS = (
    "sst2", "tweet_eval_emotion", "trec", "mpqa", "subj", "ag_news", "rte", "mrpc", "wic", "sick", "mnli", "copa",
    "tweet_eval_irony", "arc_easy",
)  # fmt: skip
WORDINGS = ("t5", "natural", "question", "no choices", "choices line", "chat", "True", "yes")
QUESTIONS = {
    "sst2": "Is this sentence positive or negative?",
    "mpqa": "Is this phrase positive or negative?",
    "tweet_eval_emotion": "Which emotion does this tweet show: anger, joy, optimism or sadness?",
    "trec": "What does this ask for: abbreviation, entity, description, person, place or number?",
    "ag_news": "What is this article about: world, sports, business or science?",
    "subj": "Is this sentence objective or subjective?",
}
"""For tasks whose natural form ends in a cue that names the answer. The question of sst2 is lm-evaluation-harness's."""
TUNED = ("sst2", "trec", "mnli")
TUNED_WORDINGS = ("t5", "natural", "choices line", "chat")
SEEDS = (0, 1, 2)
TRAIN = 1000
INPUT_TOKENS = 160
"""Enough for a chat, whose template adds about 35 tokens."""
STEPS = 60
KINDS = ("score", "balanced")
"""The plain score, and without the preference for a label."""

# Match the choices at the end of a question.
_YES_OR_NO = re.compile(r" Yes(, Maybe)? or No\?(?=\nAnswer:$)")
_LISTED = re.compile(r": [^:?\n]+(?=\?\nAnswer:$)")


def reworded(task: Task, change: Callable[[str, Task], str]) -> Task:
    """Returns the task with every input changed."""
    splits = {
        split: tuple(replace(row, input=change(row.input, task)) for row in getattr(task, split))
        for split in ("train", "validation", "test")
    }
    return replace(task, **splits)


def without_choices(text: str, task: Task) -> str:
    """Returns an input whose question names no choices."""
    bare = _YES_OR_NO.sub("", text)
    return bare if bare != text else _LISTED.sub("", text)


def with_question(text: str, task: Task) -> str:
    """Returns an input that ends in a question and `Answer:` instead of its own cue."""
    body, _, _ = text.rpartition("\n")
    return f"{body}\nQuestion: {QUESTIONS[task.name]}\nAnswer:" if task.name in QUESTIONS else text


def with_choices(text: str, task: Task) -> str:
    """Returns an input with a line before its cue that names the choices."""
    body, _, cue = text.rpartition("\n")
    labels = list(task.labels or ())
    return f"{body}\nChoices: {', '.join(labels[:-1])} or {labels[-1]}\n{cue}"


def other_words(task: Task, words: dict[str, str]) -> Task:
    """Returns the task with other label words, in answers and in questions that name Yes, Maybe or No."""
    swapped = {label: words.get(label, label) for label in task.labels or ()}
    asked = {
        text: " ".join(words.get(word.strip(",?"), word) for word in text.split())
        for text in ("Yes, Maybe or No", "Yes or No")
    }
    asked["Yes, Maybe or No"] = asked["Yes, Maybe or No"].replace(words["Yes"], f"{words['Yes']},")

    def said(text: str) -> str:
        for old, new in asked.items():
            text = text.replace(f" {old}?\nAnswer:", f" {new}?\nAnswer:")
        return text

    changed = {
        split: tuple(
            replace(row, input=said(row.input), target=swapped[row.target]) for row in getattr(task, split)
        )
        for split in ("train", "validation", "test")
    }
    return replace(task, labels=tuple(swapped.values()), **changed)


class Wordings:
    """The tasks in every wording; each is cut to the needed rows before it is changed."""

    def __init__(self, model: FrozenModel, data_dir: str, rows: int) -> None:
        self._chat = chat_of(model.tokenizer, model.name)
        self._data_dir, self._rows = data_dir, rows
        self._loaded: dict[tuple[str, Form], Task] = {}

    def in_form(self, name: str, form: Form) -> Task:
        """Returns the first rows of a task in one of its forms."""
        if (name, form) not in self._loaded:
            task = load_task(name, data_dir=self._data_dir, form=form)
            cut = replace(task, train=task.train[:TRAIN], validation=task.validation[: self._rows], test=())
            self._loaded[name, form] = cut
        return self._loaded[name, form]

    def get(self, name: str, wording: str) -> Task:
        """Returns a task in one of `WORDINGS`."""
        if wording == "t5":
            return self.in_form(name, "t5")
        natural = self.in_form(name, "natural")
        match wording:
            case "chat":
                return in_chat(natural, self._chat)
            case "question":
                return reworded(natural, with_question)
            case "no choices":
                return reworded(reworded(natural, with_question), without_choices)
            case "choices line":
                return reworded(natural, with_choices)
            case "True":
                return other_words(natural, {"Yes": "True", "No": "False", "Maybe": "Neither"})
            case "yes":
                return other_words(natural, {"Yes": "yes", "No": "no", "Maybe": "maybe"})
        return natural


class Cell(NamedTuple):
    """One task in one wording; the seed of a tuned prompt, or None for the bare model."""

    task: str
    wording: str
    seed: int | None

    @property
    def file(self) -> str:
        """The name of its result."""
        tuned = "" if self.seed is None else f".tuned.{self.seed}"
        return f"{self.task}.{self.wording.replace(' ', '_')}{tuned}.json"


def recipe_of(seed: int) -> Recipe:
    """Returns the recipe of the tuned prompts."""
    return Recipe.preset(
        "decoder", steps=STEPS, evaluate_every=STEPS, max_input_tokens=INPUT_TOKENS, seed=seed
    )


def score(model: FrozenModel, task: Task, seed: int | None) -> dict[str, Any]:
    """Scores one task in one wording, with the bare model or with a prompt of a few steps.

    A small model prefers some labels whatever it reads, and the wording changes that preference more than anything
    else. So there is also a score without it: `balanced` subtracts from every label its mean log-likelihood over the
    rows, which uses no target (batch calibration, Zhou et al. 2023, arXiv 2309.17249).
    """
    began = time.process_time()
    examples, labels = task.validation, list(task.labels or ())
    prompt, recipe = torch.zeros(0, model.dim), None
    if seed is not None:
        recipe = recipe_of(seed)
        # The last step counts: the few validation rows choose nothing but the average or the last prompt.
        prompt = tune(model, replace(task, validation=examples[:16]), recipe).prompt.value
    encoded = encode(
        model, examples, end=needs_end(model, labels), prompt_length=len(prompt), max_input_tokens=INPUT_TOKENS,
        labels=labels,
    )  # fmt: skip
    logs = label_log_likelihoods(model, prompt.to(model.device), encoded, labels)
    targets = [row.target for row in examples]
    said = {
        way: [labels[place] for place in found.argmax(1).tolist()]
        for way, found in zip(KINDS, (logs, logs - logs.mean(0)), strict=True)
    }
    return {
        "task": task.name, "family": task.family, "form": task.form, "labels": labels, "metric": task.metric,
        **{
            way: compute(task.metrics, answers, targets, task.labels, examples=examples)[task.metric]
            for way, answers in said.items()
        },
        "intervals": {
            way: score_intervals(task.metrics, answers, examples, task.labels)[task.metric].to_json()
            for way, answers in said.items()
        },
        "one_label": best_constant_score(task, examples), "rows": len(examples),
        "example": examples[0].input, "recipe": None if recipe is None else recipe.model_dump(mode="json"),
        "truncated": encoded.truncated, "dtype": str(model.dtype).removeprefix("torch."),
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def cells(tasks: Sequence[str]) -> Iterator[Cell]:
    """Yields the cells of some tasks: the forms of all before the other wordings, and these before tuned prompts."""
    for part in (WORDINGS[:3], WORDINGS[3:]):
        for task in tasks:
            yield from (Cell(task, wording, None) for wording in part)
    for seed in SEEDS:
        for task in filter(TUNED.__contains__, tasks):
            yield from (Cell(task, wording, seed) for wording in TUNED_WORDINGS)


def planned(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record has to hold, see `require_alike`."""
    return {"recipe": None if record["seed"] is None else recipe_of(record["seed"]).model_dump(mode="json")}


def run(arguments: argparse.Namespace) -> None:
    """Runs the cells that have no result. A wording that changes nothing in a task has no cell for it."""
    arguments.cells.mkdir(parents=True, exist_ok=True)
    require_alike(arguments.cells, planned)
    model = model_of(arguments)
    wordings = Wordings(model, arguments.data_dir, arguments.rows)
    for cell in cells(arguments.tasks):
        path = arguments.cells / cell.file
        with claimed(path) as mine:
            if not mine:
                continue
            task = wordings.get(cell.task, cell.wording)
            if (
                cell.wording != "natural"
                and task.validation == wordings.in_form(cell.task, "natural").validation
            ):
                continue
            found = score(model, task, cell.seed) | {"wording": cell.wording, "seed": cell.seed}
            write_record(path, found)
        print(path.name, f"{found['score']:.1f} / {found['balanced']:.1f}", file=sys.stderr, flush=True)


def table(folder: Path, *, tuned: bool) -> str:
    """Returns the scores of the cells as a Markdown table, plain and balanced: mean and deviation over seeds.

    Args:
        folder: The folder of the cells.
        tuned: Whether the cells with a tuned prompt are meant, or those of the bare model.
    """
    found = defaultdict[tuple[str, str], list[dict[str, Any]]](list)
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if (record["seed"] is not None) == tuned:
            found[record["task"], record["wording"]].append(record)
    ways = TUNED_WORDINGS if tuned else WORDINGS
    lines = [
        f"| task | metric | one label | {' | '.join(ways)} |", "|---|---|" + "--:|" * (len(ways) + 1),
    ]  # fmt: skip
    for name in TASKS:
        some = next((one for way in ways for one in found[name, way]), None)
        if some is None:
            continue
        scores = (
            " / ".join(filter(None, (spread([one[kind] for one in found[name, way]]) for kind in KINDS)))
            for way in ways
        )
        lines.append(f"| {name} | {some['metric']} | {some['one_label']:.1f} | {' | '.join(scores)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs cells, or prints the tables."""
    parser = cell_parser(__doc__)
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", type=int, default=200, help="validation rows of each task")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write("\n\n".join(table(arguments.cells, tuned=tuned) for tuned in (False, True)) + "\n")
    else:
        run(arguments)


if __name__ == "__main__":
    main()
