"""Why does retrieval keep less than 80 % of the oracle's gain? Three reasons, each tested on a finished study.

Every pair of source and target of the study is tuned, so any other choice of a source can be replayed from its cells:

- *The keys know too little*: rank by the finished prompts, by a key and a finished prompt, by keys averaged over the
  seeds (a probe of three times the cost), and by a trial of the untuned sources on training rows.
- *Some sources are better whatever the target*: rank by a source's mean gain over the other targets, alone and
  together with the keys.
- *Single validation scores are noisy*: choose by the mean over the seeds, of the score and of the loss.

Nothing is tuned. Only the trials (`--trials`) need the model and the rows: each is a JSON file under
`docs/experiments/retrieval_reasons/STUDY/` and runs once. The choices were made after the study's test scores were
known, so a gain here would have to be shown again on another study.

    python -m experiments.retrieval_reasons docs/studies/eighteen_sources --trials --data-dir data --threads 1
    python -m experiments.retrieval_reasons docs/studies/eighteen_sources --write
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.cells import claimed
from experiments.pages import filled
from spoton import PromptLibrary, SoftPrompt
from spoton.study.analysis.analyse import Analysis, analyse
from spoton.study.analysis.source_choices import SourceChoices
from spoton.study.results.collect import collect
from spoton.study.results.score_arrays import Array
from spoton.study.results.study_results import SCRATCH
from spoton.study.run.cell_runner import CellRunner, Placement
from spoton.transfer import trial
from spoton.transfer.ranking.trial import TEXT
from spoton.transfer.similarity import similarity
from spoton.transfer.sources import SourcePrompt
from spoton.tuning.record import versions, write_record

TRIALS = Path(__file__).parents[1] / "docs" / "experiments" / "retrieval_reasons"
PART = "retrieval-reasons"
SIMILARITY = "average_tokens"
TRIED = (1, 3, 5)
"""The k for which the best of the k first sources is shown."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A way to choose a source: a ranking, or a score that all sources are compared by.

    Attributes:
        reason: The reason that it tests.
        name: What it does.
        choices: The study's sources with this ranking as `SIMILARITY`, or with this score as validation score.
        by_validation: Whether all sources are compared instead of the first ones.
    """

    reason: str
    name: str
    choices: SourceChoices
    by_validation: bool = False

    def cells(self) -> Iterator[str]:
        """Yields mean gain, deviation over seeds, and the share of the oracle's gain, for each k of `TRIED`."""
        if self.by_validation:
            found = self.choices.best_by_validation()
            yield from ("", "", "", self._cell(found))
            return
        for k in TRIED:
            yield self._cell(self.choices.best_of_top(SIMILARITY, k))
        yield ""

    def _cell(self, scores: Array) -> str:
        row = self.choices.row(self.name, None, None, scores, self.choices.retrievable)
        return f"{row.absolute.mean:+.1f} ± {row.absolute.std:.1f}, {100 * row.kept:.0f} %"


@dataclass(frozen=True, eq=False)
class Reasons:
    """The choices of a study.

    Attributes:
        analysis: The study's analysis; its sources have one prompt for all seeds.
        folder: The study's folder, with its prompts.
    """

    analysis: Analysis
    folder: Path

    @property
    def choices(self) -> SourceChoices:
        """The study's sources, their scores and their rankings."""
        return self.analysis.choices

    @cached_property
    def _prompts(self) -> dict[tuple[str, str, int], SoftPrompt]:
        """The prompts by kind, task and seed, from file names such as `scratch.cb.0.f7ee437a9371.safetensors`."""
        found = {}
        for path in sorted((self.folder / "prompts").glob("*.safetensors")):
            kind, task, seed, *_ = path.name.split(".")
            found[kind, task, int(seed)] = SoftPrompt.load(path)
        return found

    def all(self) -> Iterator[Choice]:
        """Yields every choice, with the study's own first."""
        keys = self.choices.similarity[SIMILARITY]
        prior = np.where(np.isfinite(keys), self._gain_elsewhere(), np.nan)
        key, value = (lambda prompt: prompt.key), (lambda prompt: prompt.value)
        ranked = partial(self._ranked, "the keys know too little")
        yield Choice("as it is", "keys", self.choices)
        yield Choice("as it is", "all sources, by validation score", self.choices, by_validation=True)
        yield ranked("keys, mean over seeds", over_seeds(keys))
        yield ranked("finished prompts", self._similarity(value, value))
        yield ranked("the source's finished prompt, the target's key", self._similarity(value, key))
        if np.isfinite(tried := self._tried()).any():
            yield ranked("a trial of the untuned sources", tried)
        ranked = partial(self._ranked, "some sources are better whatever the target")
        yield ranked("mean gain over the other targets", prior)
        for share in (0.25, 0.5):
            yield ranked(
                f"keys, {share:.0%} of it mean gain", (1 - share) * standard(keys) + share * standard(prior)
            )
        losses = self.choices.loss
        for name, scores in (
            ("validation score, mean over seeds", over_seeds(self.choices.chosen_by)),
            ("validation loss", -losses),
            ("validation loss, mean over seeds", -over_seeds(losses)),
        ):
            replayed = replace(self.choices, chosen_by=scores, loss=np.full_like(losses, np.nan), _curves={})
            yield Choice("single validation scores are noisy", name, replayed, by_validation=True)

    def _ranked(self, reason: str, name: str, ranking: Array) -> Choice:
        return Choice(reason, name, replace(self.choices, similarity={SIMILARITY: ranking}, _curves={}))

    def _similarity(
        self, of_source: Callable[[SoftPrompt], object], of_target: Callable[[SoftPrompt], object]
    ) -> Array:
        """Returns `[S, T, N]` similarities of what is taken from the source's and from the target's prompt."""
        grid = self.analysis.reported
        found = np.full(grid.transfer.shape, np.nan)
        for s, t in grid.pairs():
            for n, seed in enumerate(grid.seeds):
                target = self._prompts.get((SCRATCH, grid.targets[t], seed or 0))
                if target is not None:
                    source = self._prompts["source", grid.sources[s], 0]
                    found[s, t, n] = similarity(of_source(source), of_target(target), SIMILARITY)  # type: ignore[arg-type]
        return found

    def _tried(self) -> Array:
        """Returns `[S, T, N]` negative places in the rankings of the finished trials; NaN where there is none."""
        places = {}
        for path in sorted((TRIALS / self.folder.name).glob("*.json")):
            found = json.loads(path.read_text())
            order = [source for source in found["order"] if source != TEXT]
            places |= {
                (source, found["target"], found["seed"]): -float(place) for place, source in enumerate(order)
            }
        return self.analysis.reported.laid_out(places)

    def _gain_elsewhere(self) -> Array:
        """Returns `[S, T, N]` mean gains of the source over all targets but this one, over all seeds."""
        gains = self.choices.reported - self.choices.scratch
        found = np.full(gains.shape, np.nan)
        for t in range(gains.shape[1]):
            found[:, t] = np.nanmean(np.delete(gains, t, axis=1), axis=(1, 2))[:, None]
        return found


def run_trials(study: Path, device: str) -> None:
    """Ranks the study's sources for each target and seed as `--rank trial` does, where there is no record yet."""
    runner, trials = CellRunner(study, placement=Placement(device=device)), TRIALS / study.name
    sources = {
        entry.name.split(".")[1]: (library, entry)
        for library in [PromptLibrary(study / "prompts")]
        for entry in library.list()
        if entry.name.startswith("source.")
    }
    trials.mkdir(parents=True, exist_ok=True)
    for seed in runner.study.seeds:
        for target in (entry.task for entry in runner.study.targets.tasks):
            with claimed(trials / f"{target}.{seed}.json") as mine:
                if mine:
                    write_record(trials / f"{target}.{seed}.json", one_trial(runner, target, seed, sources))


def one_trial(
    runner: CellRunner, target: str, seed: int, sources: Mapping[str, SourcePrompt]
) -> dict[str, Any]:
    """Returns the record of a trial; sources that the study leaves out for the target do not take part."""
    left_out = {pair.source for pair in runner.study.leave_out if pair.target == target} | {target}
    tried = [pair for name, pair in sources.items() if name not in left_out]
    entry = next(entry for entry in runner.study.targets.tasks if entry.task == target)
    recipe = runner.study.targets.recipe_of(entry).changed(seed=seed)
    task = runner.task("target", target)
    found = trial(runner.model, task, tried, len(tried) + 1, recipe)
    order = [TEXT if one.name == TEXT else one.name.split(".")[1] for one in found]
    print(target, seed, order[:3], file=sys.stderr, flush=True)
    return {
        "target": target, "seed": seed, "order": order, "losses": [one.loss for one in found],
        "steps": found.cost.steps, "data_hash": task.data_hash(), "dtype": str(runner.model.dtype),
        "model_fingerprint": runner.model.fingerprint, "recipe": recipe.model_dump(), "versions": versions(),
    }  # fmt: skip


def over_seeds(values: Array) -> Array:
    """Returns `[S, T, N]` with each value replaced by its mean over the seeds; NaN where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pairs that were left out
        return np.broadcast_to(np.nanmean(values, axis=2, keepdims=True), values.shape).copy()


def standard(values: Array) -> Array:
    """Returns `[S, T, N]` values with mean 0 and deviation 1 over the sources of each target and seed."""
    scaled: Array = (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)
    return scaled


def table(reasons: Reasons) -> str:
    """Returns the gain over scratch of every choice and its share of the oracle's, as Markdown."""
    lines = [
        f"| reason tested | choice by | {' | '.join(f'k = {k}' for k in TRIED)} | all sources |",
        "|---|---" + "|--:" * (len(TRIED) + 1) + "|",
    ]
    lines += [f"| {one.reason} | {one.name} | {' | '.join(one.cells())} |" for one in reasons.all()]
    return "\n".join(lines)


def main() -> None:
    """Runs the missing trials, prints the table of a study, or writes it into the study's README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of a finished study with prompts of a library")
    parser.add_argument("--trials", action="store_true", help="run the missing trials")
    parser.add_argument("--data-dir", help="folder with the rows, for --trials; not given: SPOTON_DATA_DIR")
    parser.add_argument("--threads", type=int, default=2, help="processor threads, for --trials")
    parser.add_argument("--device", default="auto", help="for --trials; auto: CUDA if there is one")
    parser.add_argument("--write", action="store_true", help="write the table into the study's README")
    arguments = parser.parse_args()
    if arguments.trials:
        if arguments.data_dir:
            os.environ["SPOTON_DATA_DIR"] = arguments.data_dir
        torch.set_num_threads(arguments.threads)
        run_trials(arguments.study, arguments.device)
        return
    found = table(Reasons(analyse(collect(arguments.study)), arguments.study))
    if arguments.write:
        page = arguments.study / "README.md"
        page.write_text(filled(page.read_text(), PART, f"\n{found}\n"))
    else:
        sys.stdout.write(found + "\n")


if __name__ == "__main__":
    main()
