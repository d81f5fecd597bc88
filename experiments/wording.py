"""How the wording of a task changes the bare model's score: forms, a chat, and a line that names the choices.

Scores SmolLM2-135M-Instruct without a prompt, by rank, on the first validation rows of tasks of several families, each
in several wordings. Also scores a prompt of a few steps in the wordings that matter. A cell is one task in one wording.
Finished cells are kept in `docs/experiments/wording`, so a killed run resumes. `--table` prints the tables.

It says nothing about other models: label words and choices that help one model may hurt another.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spoton import Recipe, Task, load_model, load_task, tune
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.form import chat_of
from spoton.evaluation.intervals import score_intervals
from spoton.evaluation.score import label_log_likelihoods
from spoton.files import atomic_write
from spoton.models import FrozenModel
from spoton.tasks.chat import in_chat
from spoton.tasks.majority import best_constant_score
from spoton.tasks.metrics import compute
from spoton.tasks.task_info import Form

CELLS = Path(__file__).parent.parent / "docs" / "experiments" / "wording"
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
TRAIN = 1000
INPUT_TOKENS = 96
RECIPE = {
    "steps": 60,
    "batch_size": 8,
    "evaluate_every": 60,
    "learning_rate": 0.02,
    "max_input_tokens": INPUT_TOKENS,
}

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


def cell(model: FrozenModel, task: Task, *, tuned: bool) -> dict[str, Any]:
    """Scores one task in one wording, with the bare model or with a prompt of a few steps.

    A small model prefers some labels whatever it reads, and the wording changes that preference more than anything
    else. So there is also a score without it: `balanced` subtracts from every label its mean log-likelihood over the
    rows, which uses no target (batch calibration, Zhou et al. 2023, arXiv 2309.17249).
    """
    began = time.monotonic()
    examples, labels = task.validation, list(task.labels or ())
    prompt = torch.zeros(0, model.dim)
    if tuned:
        # The last step counts: the few validation rows choose nothing.
        prompt = tune(model, replace(task, validation=examples[:16]), Recipe(**RECIPE)).prompt.value
    encoded = encode(
        model, examples, end=needs_end(model, labels), prompt_length=len(prompt), max_input_tokens=INPUT_TOKENS,
        labels=labels,
    )  # fmt: skip
    logs = label_log_likelihoods(model, prompt.to(model.device), encoded, labels)
    targets = [row.target for row in examples]

    def score(said: list[str]) -> float:
        return compute(task.metrics, said, targets, task.labels, examples=examples)[task.metric]

    plain, balanced = (
        [labels[place] for place in found.argmax(1).tolist()] for found in (logs, logs - logs.mean(0))
    )
    return {
        "task": task.name, "family": task.family, "form": task.form, "labels": labels, "metric": task.metric,
        "score": score(plain), "balanced": score(balanced),
        "intervals": [
            score_intervals(task.metrics, said, examples, task.labels)[task.metric].to_json()
            for said in (plain, balanced)
        ],
        "one_label": best_constant_score(task, examples), "rows": len(examples),
        "example": examples[0].input, "recipe": RECIPE if tuned else None, "truncated": encoded.truncated,
        "seconds": time.monotonic() - began,
    }  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Computes the missing cells. A wording that changes nothing in a task has no cell for it."""
    model = load_model()
    wordings = Wordings(model, arguments.data_dir, arguments.rows)
    names = arguments.tasks.split(",")
    jobs = [(name, wording, False) for part in (WORDINGS[:3], WORDINGS) for name in names for wording in part]
    jobs += [(name, wording, True) for name in TUNED for wording in ("t5", "natural", "chat")]
    for name, wording, tuned in jobs:
        path = CELLS / f"{name}.{wording.replace(' ', '_')}{'.tuned' if tuned else ''}.json"
        if path.exists():
            continue
        task = wordings.get(name, wording)
        if wording != "natural" and task.validation == wordings.in_form(name, "natural").validation:
            continue
        found = cell(model, task, tuned=tuned)
        atomic_write(
            path, (json.dumps(found | {"wording": wording}, indent=1, ensure_ascii=False) + "\n").encode()
        )
        print(
            f"{name}, {wording}{', tuned' if tuned else ''}: {found['score']:.1f}, balanced {found['balanced']:.1f}",
            flush=True,
        )


def table() -> str:
    """Returns Markdown tables of the cells: without a prompt, and with one."""
    cells = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(CELLS.glob("*.json"))}
    parts = []
    for suffix in ("", ".tuned"):
        there = {
            (found["task"], found["wording"]): found
            for stem, found in cells.items()
            if stem.endswith(".tuned") == bool(suffix)
        }
        if not there:
            continue
        ways = list(dict.fromkeys(way for way in WORDINGS for _, kept in there if kept == way))
        names = [name for name in TASKS if any(task == name for task, _ in there)]
        lines = [
            f"| task | metric | one label | {' | '.join(ways)} |",
            "|---|---|" + "--:|" * (len(ways) + 1),
        ]
        for name in names:
            row = {way: there.get((name, way)) for way in ways}
            some = next(found for found in row.values() if found)
            scores = " | ".join(
                f"{found['score']:.1f} / {found['balanced']:.1f}" if found else "" for found in row.values()
            )
            lines.append(f"| {name} | {some['metric']} | {some['one_label']:.1f} | {scores} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _scores(found: dict[str, Any] | None) -> str:
    return f"{found['score']:.1f} / {found['balanced']:.1f}" if found else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder with <task>/train.jsonl and validation.jsonl")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, separated by commas")
    parser.add_argument("--rows", type=int, default=200, help="validation rows of each task")
    parser.add_argument("--table", action="store_true", help="print the tables instead of computing cells")
    given = parser.parse_args()
    if given.table:
        print(table())
    else:
        run(given)
