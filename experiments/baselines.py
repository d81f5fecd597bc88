"""Compares SPoT with its baselines at equal data: ZeroShot, PromptTuning, ModelTuning and multi-task ModelTuning.

All arms of a task and seed see the same rows in the same order. The same code validates and tests them, on one model
in float32. SPoT starts from the prompt of `--library` whose key is nearest to the key of the PromptTuning arm.
Multi-task ModelTuning first tunes all weights on `--mixture`, once per seed, and then on the target. Without a mixture
this arm is left out. The mixture should not contain the target.

Each cell has its own JSON file, written last. Finished cells never run again; killed cells resume from their last
evaluation. `--table` prints the results so far as Markdown, with the number of tuned parameters per task.

    python experiments/baselines.py --tasks movie_sentiment --seeds 0,1,2 --mixture tweet_sentiment,product_sentiment
    python experiments/baselines.py --table
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spoton import (
    PromptLibrary,
    Recipe,
    SoftPrompt,
    evaluate,
    load_model,
    resolve_task,
    starter_library,
    tune,
)
from spoton.models import FrozenModel
from spoton.prompts import Parent
from spoton.tasks import Task
from spoton.transfer import retrieve, sources_for
from spoton.tuning import ModelRecipe, tune_model
from spoton.tuning.full_model.tune import TunedModel
from spoton.tuning.full_model.tune_to_folder import tune_model_to_folder
from spoton.tuning.prompt_run import Tuned
from spoton.tuning.record import versions, write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "baselines"
ARMS = {
    "zero-shot": "ZeroShot", "prompt-tuning": "PromptTuning", "spot": "SPoT", "model-tuning": "ModelTuning",
    "multi-task-model-tuning": "multi-task ModelTuning",
}  # fmt: skip
VALIDATION, TEST = 100, 200


class Bench:
    """One model, its recipes and the folder of results.

    Args:
        model: The model that every arm starts from.
        cells: Folder of the results.
        recipe: Recipe of the prompts. Model tuning has the same steps, batches, evaluations and input length.
        learning_rate: Learning rate of model tuning.
        libraries: Where SPoT finds its sources.
        mixture: The mixture that multi-task model tuning tunes on first; None leaves this arm out.
    """

    def __init__(
        self, model: FrozenModel, cells: Path, recipe: Recipe, learning_rate: float,
        libraries: Sequence[PromptLibrary], mixture: Task | None,
    ) -> None:  # fmt: skip
        self.model, self.cells, self.recipe = model, cells, recipe
        self.learning_rate, self.libraries, self.mixture = learning_rate, libraries, mixture

    def run(self, tasks: Sequence[Task], seeds: Sequence[int]) -> None:
        """Runs every cell that has no result."""
        self.cells.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            for task in tasks:
                for arm in ARMS:
                    path = self.path(task, arm, seed)
                    if (arm.startswith("multi") and self.mixture is None) or self.is_done(path, task):
                        continue
                    record = self.cell(task, arm, seed)
                    write_record(path, record)
                    self.clean(path)
                    print(
                        path.name, record["test"], f"{record['seconds']:.0f} s", file=sys.stderr, flush=True
                    )

    def path(self, task: Task, arm: str, seed: int) -> Path:
        """Returns the path of a cell's result; the bare model has no seed, so its cells are all alike."""
        return self.cells / f"{task.name}.{arm}.{seed}.json"

    def is_done(self, path: Path, task: Task) -> bool:
        """Whether the cell is finished; refuses to mix cells of other data, steps, batches or models in one table."""
        if not path.exists():
            return False
        cell = json.loads(path.read_text())
        wanted = (task.data_hash(), self.recipe.steps, self.recipe.batch_size, self.model.fingerprint)
        if (cell["data"], cell["steps"], cell["recipe"]["batch_size"], cell["model"]) != wanted:
            raise SystemExit(
                f"{path} is of other rows, steps, batches or another model. Remove it, or name another --cells."
            )
        return True

    def cell(self, task: Task, arm: str, seed: int) -> dict[str, Any]:
        """Runs one cell and returns its result."""
        start, path = time.monotonic(), self.path(task, arm, seed)
        recipe = self.recipe.changed(seed=seed)
        checkpoint, limit = path.with_suffix(".checkpoint"), recipe.max_input_tokens
        more: dict[str, Any] = {}
        model, prompt, found = self.model, None, None
        if arm == "zero-shot":
            more = {"validation": evaluate(model, None, task.validation, task, max_input_tokens=limit).scores}
        elif arm == "prompt-tuning":
            found = tune(model, task, recipe, checkpoint=checkpoint, resume=True)
            found.prompt.save(path.with_suffix(".safetensors"))
        elif arm == "spot":
            key = SoftPrompt.load(self.path(task, "prompt-tuning", seed).with_suffix(".safetensors")).key
            if key is None:
                raise SystemExit(
                    f"Retrieval needs a key, which is taken after {recipe.key_step} steps: raise --steps."
                )
            sources = sources_for(
                self.libraries, model.fingerprints, task=task.name, data_hash=task.data_hash()
            )
            (near,) = retrieve(key, sources, 1)
            parent = Parent(name=near.name, weight=1.0, hash=near.prompt.content_hash())
            found = tune(
                model,
                task,
                recipe,
                initial=near.prompt.value,
                parents=[parent],
                checkpoint=checkpoint,
                resume=True,
            )
            more = {"source": near.to_json()}
        else:
            if arm == "multi-task-model-tuning":
                model, more = self.tuned_on_the_mixture(seed), {"mixture": self.mixture and self.mixture.name}
            found = tune_model(model, task, self.of_models(seed), checkpoint=checkpoint, resume=True)
        if found is not None:
            if found.stopped == "interrupted":
                raise KeyboardInterrupt
            more |= {"history": found.history, "stopped": found.stopped, **_outcome(found)}
        if isinstance(found, TunedModel):
            model = found.model
        elif found is not None:
            prompt = found.prompt
        test = evaluate(model, prompt, task.test, task, max_input_tokens=limit)
        kind = recipe if prompt is not None or found is None else self.of_models(seed)
        return {
            "task": task.name, "arm": arm, "seed": seed, "metric": task.metric, "evaluation": test.mode,
            "test": test.scores, "tuned_parameters": 0, **more, "recipe": kind.model_dump(), "steps": recipe.steps,
            "splits": task.splits(), "protocol": task.protocol, "rows": task.source, "data": task.data_hash(),
            "model": self.model.fingerprint, "seconds": time.monotonic() - start, "versions": versions(),
        }  # fmt: skip

    def of_models(self, seed: int) -> ModelRecipe:
        """Returns the recipe of model tuning, with the same data as the prompts."""
        shared = ("steps", "batch_size", "evaluate_every", "max_input_tokens")
        same = {name: getattr(self.recipe, name) for name in shared}
        return ModelRecipe(learning_rate=self.learning_rate, seed=seed).changed(**same)

    def tuned_on_the_mixture(self, seed: int) -> FrozenModel:
        """Returns the model tuned on the mixture. It is tuned when a seed first needs it, and kept as a folder."""
        assert self.mixture is not None
        folder = self.cells / f"{self.mixture.name}.{seed}"
        if not (folder / "record.json").is_file():
            tune_model_to_folder(self.model, self.mixture, self.of_models(seed), folder, resume=True)
        record = json.loads((folder / "record.json").read_text())
        wanted = (self.mixture.data_hash(), self.of_models(seed).model_dump(), self.model.fingerprint)
        if (record["data_hash"], record["recipe"], record["model_fingerprint"]) != wanted:
            raise SystemExit(f"{folder} was tuned otherwise. Remove it, or name another --cells.")
        return load_model(str(folder), dtype="float32")

    @staticmethod
    def clean(path: Path) -> None:
        """Removes the checkpoint of a finished cell: a file for a prompt, a folder for a model."""
        checkpoint = path.with_suffix(".checkpoint")
        if checkpoint.is_dir():
            shutil.rmtree(checkpoint)
        checkpoint.unlink(missing_ok=True)


def _outcome(found: Tuned | TunedModel) -> dict[str, Any]:
    if isinstance(found, TunedModel):
        return {"validation": found.scores["validation"], "best_step": found.best_step,
                "tuned_parameters": found.parameters}  # fmt: skip
    card = found.prompt.card
    return {"validation": card.scores["validation"], "best_step": card.best_step,
            "tuned_parameters": found.prompt.value.numel()}  # fmt: skip


def table(cells: Path) -> str:
    """Returns test scores (mean ± standard deviation over seeds) and what is tuned per task, as Markdown."""
    found = [json.loads(path.read_text()) for path in sorted(cells.glob("*.json"))]
    tasks = sorted({cell["task"] for cell in found})
    columns = ("method", *tasks, "tuned parameters a task", "bytes a task", "times a prompt")
    lines = [f"| {' | '.join(columns)} |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    sizes = {
        arm: max((cell["tuned_parameters"] for cell in found if cell["arm"] == arm), default=None)
        for arm in ARMS
    }
    for arm, name in ARMS.items():
        shown = []
        for task in tasks:
            own = [cell for cell in found if (cell["task"], cell["arm"]) == (task, arm)]
            scores = [cell["test"][cell["metric"]] for cell in own]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            shown.append(f"{statistics.mean(scores):.1f}{spread} ({len(scores)})" if scores else "not run")
        size, prompt = sizes[arm], sizes["prompt-tuning"]
        ratio = f"{size / prompt:,.0f}" if size and prompt else "-"
        counted = ("-", "-") if size is None else (f"{size:,}", f"{4 * size:,}")
        lines.append(f"| {' | '.join((name, *shown, *counted, ratio))} |")
    return "\n".join(lines)


def main() -> None:
    """Runs cells, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks", default="movie_sentiment", help="with commas between them, as for spoton tune"
    )
    parser.add_argument("--seeds", default="0", help="with commas between them")
    parser.add_argument("--mixture", help="tasks with commas between them, or a mixture of the paper")
    parser.add_argument(
        "--library", type=Path, help="folder of source prompts; not given: the starter library"
    )
    parser.add_argument("--model", default="smollm2-135m", help="as for spoton tune")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of every arm")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=Recipe.preset("decoder").batch_size,
        help="examples a step of every arm",
    )
    parser.add_argument(
        "--key-step", type=int, default=Recipe.preset("decoder").key_step, help="age of a key"
    )
    parser.add_argument("--evaluate-every", type=int, default=40, help="steps between two looks")
    parser.add_argument(
        "--learning-rate", type=float, default=ModelRecipe().learning_rate, help="of model tuning"
    )
    parser.add_argument("--validation-size", type=int, default=VALIDATION)
    parser.add_argument("--test-size", type=int, default=TEST)
    parser.add_argument("--threads", type=int, default=1, help="processor threads of this process")
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(arguments.threads)
        sizes = {"validation": arguments.validation_size, "test": arguments.test_size}
        tasks = [resolve_task(name).limited(**sizes) for name in arguments.tasks.split(",")]
        mixture = resolve_task(f"mixture:{arguments.mixture}").limited(**sizes) if arguments.mixture else None
        library = (
            starter_library()
            if arguments.library is None
            else PromptLibrary(arguments.library, readonly=True)
        )
        recipe = Recipe(
            steps=arguments.steps, batch_size=arguments.batch_size, key_step=arguments.key_step,
            evaluate_every=arguments.evaluate_every,
        )  # fmt: skip
        model = load_model(arguments.model, dtype="float32")
        bench = Bench(model, arguments.cells, recipe, arguments.learning_rate, [library], mixture)
        bench.run(tasks, [int(seed) for seed in arguments.seeds.split(",")])
    sys.stdout.write(table(arguments.cells) + "\n")


if __name__ == "__main__":
    main()
