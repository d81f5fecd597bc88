"""Ranking sources by trying them: the loss of each untuned prompt on a few dozen rows of the target.

All prompts go through the model in shared passes and by successive rejects: all on 16 rows, the best quarter on 64
(after Audibert, Bubeck and Munos, COLT 2010, with given rounds). The loss is taken after fitting a bias for each label
and a temperature to the scores, since an untuned source's preference for one label misleads. A prompt of the target's
own text is one of the candidates, so misleading sources rank below it.

A trial needs no tuned probe. Finished scores are kept in a folder, so a killed trial resumes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from spoton.errors import LibraryError, PromptError, RecipeError
from spoton.evaluation.calibration import calibrated, fit_calibration, gold_indices
from spoton.evaluation.encoding import Encoded, encode, needs_end
from spoton.evaluation.many_prompts import (
    ScoringCost,
    label_scores_of,
    label_tokens,
    target_losses_of,
    tokens_of,
)
from spoton.evaluation.score import Watch
from spoton.events import OnEvent, silent
from spoton.files import sha256_of_text
from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card
from spoton.prompts.initial import from_prompt
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.shapes import Float
from spoton.tasks.task import Task
from spoton.transfer.sources import Cost, Ranking, Retrieved, SourcePrompt, no_source
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.recipe import Recipe
from spoton.tuning.row_order import rows_of_step
from spoton.tuning.sealed_tensors import read_sealed, write_sealed

ROUNDS = (16, 64)
"""Rows that the candidates have been tried on after each round; halved once or twice if a limit requires it."""
KEEP, AT_LEAST = 0.25, 4
"""Share of the candidates that a round keeps, and the smallest number that it keeps."""
MOST = 1000
"""Largest number of sources: their prompts are held in memory."""
STEP_PASSES = 2
"""Cost of a token in an optimizer step, in tokens that are only scored: 2.0 to 2.3 times the CPU time on
SmolLM2-135M, one core, bfloat16, with texts of 29 and 40 tokens."""
TEXT = "the task's own text"

# Number of prompts that are scored before their scores are kept.
_KEPT_TOGETHER = 16


@dataclass(frozen=True)
class _Candidate:
    """A prompt in a trial.

    Attributes:
        name: Its name in its library.
        prompt: The prompt in the library.
        value: `[P, D]` the matrix that is tried.
        is_source: False for the target's own text.
    """

    name: str
    prompt: SoftPrompt
    value: Float[Tensor, "P D"]
    is_source: bool = True


def trial(
    model: FrozenModel,
    task: Task,
    sources: Sequence[SourcePrompt],
    k: int,
    recipe: Recipe,
    *,
    length: int | None = None,
    limit: int | None = None,
    folder: Path | None = None,
    on_event: OnEvent = silent,
    phase: str = "trial",
) -> Ranking:
    """Ranks sources by their loss on rows of the target's training split.

    Args:
        model: The frozen model.
        task: The target.
        sources: From `sources_for`; they need no key.
        k: Number of sources to return. Those that survived more rounds come before those that were rejected.
        recipe: The target's recipe: decides rows (seed), input length, how labels are scored, the length of the own
            text, and the cost of a step.
        length: P at which sources are tried; None: each at its own.
        limit: Largest cost of the trial, in optimizer steps.
        folder: Folder that keeps finished scores; None: nothing is kept.
        on_event: Called with progress events.
        phase: Name of the trial in progress events.

    Raises:
        LibraryError: There is no source, or there are more than `MOST`.
        RecipeError: The smallest trial costs more than the limit.
    """
    if len(sources) > MOST:
        raise LibraryError(
            f"A trial takes at most {MOST} sources, found {len(sources)}. Give a smaller --library, or rank by "
            "similarity."
        )
    candidates, damaged = _candidates(model, task, sources, recipe, length)
    run = _Trial(model, task, recipe, candidates, limit, folder, on_event, phase)
    found = run.ranked()[:k]
    notes = []
    if not found[0].is_source:
        notes.append(f"Every source is behind {TEXT} on {run.rounds[-1]} rows, so none is expected to help.")
    return Ranking(found, damaged, run.cost(), notes)


def _candidates(
    model: FrozenModel, task: Task, sources: Sequence[SourcePrompt], recipe: Recipe, length: int | None
) -> tuple[list[_Candidate], dict[str, str]]:
    """Returns the target's own text and every readable source; and, of the others, the reason by name."""
    found, damaged = [], {}
    for library, entry in sources:
        try:
            prompt = library.get(entry.name)
        except PromptError as error:
            damaged[entry.name] = str(error)
            continue
        value = prompt.value if length is None else from_prompt(prompt.value, length)
        found.append(_Candidate(entry.name, prompt, value))
    if not found:
        raise no_source(Counter(damaged=len(sources)))
    text, _ = starting_prompt(model, task, recipe.changed(init="task"))
    card = Card(name="text", task=task.name, model=model.name, model_fingerprint=model.fingerprint)
    return [_Candidate(TEXT, SoftPrompt(text, card), text, is_source=False), *found], damaged


class _Trial:
    """One trial: its rows, its rounds, and the losses so far."""

    def __init__(
        self,
        model: FrozenModel,
        task: Task,
        recipe: Recipe,
        candidates: Sequence[_Candidate],
        limit: int | None,
        folder: Path | None,
        on_event: OnEvent,
        phase: str,
    ) -> None:
        self.model, self.task, self.recipe, self.candidates = model, task, recipe, candidates
        self.passes = ScoringCost()
        self._folder, labels = folder, task.labels
        order = rows_of_step(len(task.train), min(ROUNDS[-1], len(task.train)), 0, recipe.seed)
        self.rows = [task.train[row] for row in order]
        self._encoded = encode(
            model, self.rows, end=needs_end(model, labels), labels=labels,
            prompt_length=max(len(one.value) for one in candidates), max_input_tokens=recipe.max_input_tokens,
        )  # fmt: skip
        self._labels = None if labels is None else label_tokens(model, labels)
        self.rounds = self._affordable(limit)
        self._watch = Watch(on_event, phase, sum(len(rows) * n for rows, n in self._stages()))

    def ranked(self) -> list[Retrieved]:
        """Returns all candidates, best first: those that survived more rounds, then those with the lower loss."""
        places = list(range(len(self.candidates)))
        scores: dict[int, Tensor] = {}
        order: list[int] = []
        for rows, n in self._stages():
            rejected, places = places[n:], places[:n]
            order = rejected + order
            for place, new in zip(places, self._scored(places, rows), strict=True):
                scores[place] = torch.cat([scores[place], new]) if place in scores else new
            places.sort(key=lambda place: (self._loss(scores[place]), place))
        return [self._as_retrieved(place, scores) for place in places + order]

    def cost(self) -> Cost:
        """Returns the cost of the trial."""
        return Cost(self._steps(self.passes.tokens), self.passes.passes, self.passes.tokens)

    def _stages(self) -> Iterator[tuple[range, int]]:
        """Yields the rows that each round adds, and how many candidates enter it."""
        alive = len(self.candidates)
        for before, after in pairwise([0, *self.rounds]):
            yield range(before, after), alive
            alive = min(alive, max(AT_LEAST, math.ceil(KEEP * alive)))

    def _affordable(self, limit: int | None) -> list[int]:
        """Returns the rounds, halved until they cost no more than the limit."""
        cheapest = 0
        for halvings in range(3):
            self.rounds = sorted({min(len(self.rows), rows >> halvings) for rows in ROUNDS})
            cheapest = self._steps(self._expected_tokens())
            if limit is None or cheapest <= limit:
                return self.rounds
        raise RecipeError(
            f"A trial of {len(self.candidates)} candidates costs as much as {cheapest} steps, and may cost {limit} of "
            f"the {self.recipe.steps}. Raise --steps or --minutes, give a smaller --library, or rank by similarity."
        )

    def _expected_tokens(self) -> int:
        longest = sorted((len(one.value) for one in self.candidates), reverse=True)
        inputs = [len(text) for text in self._encoded.inputs]
        return sum(
            tokens_of(self.model, longest[:n], [inputs[row] for row in rows]) for rows, n in self._stages()
        )

    def _steps(self, tokens: int) -> int:
        """Returns a number of scored tokens in optimizer steps of the recipe, rounded up."""
        mean = sum(map(len, self._encoded.inputs)) / len(self.rows)
        prompt = self.recipe.batch_size if engine_for(self.model).repeats_prompts else 1
        step = STEP_PASSES * (self.recipe.batch_size * mean + prompt * self.recipe.length)
        return math.ceil(tokens / step)

    def _scored(self, places: Sequence[int], rows: range) -> list[Tensor]:
        """Returns scores `[rows, C]` (losses `[rows, 1]` of open targets) of some candidates, computed now or kept."""
        found: list[Tensor] = []
        for first in range(0, len(places), _KEPT_TOGETHER):
            values = [self.candidates[place].value for place in places[first : first + _KEPT_TOGETHER]]
            found += self._kept(values, rows).unbind(0)
        return found

    def _kept(self, values: Sequence[Tensor], rows: range) -> Tensor:
        part = self._encoded.part(rows)
        path = None if self._folder is None else self._folder / f"trial-{self._name(values, part)}.scores"
        try:
            if path is None:
                raise FileNotFoundError
            tensors, plain = read_sealed(path)
            scores, took = tensors["scores"], ScoringCost(**plain)
            self._watch.advance(len(values) * len(rows))
        except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: computed again
            took = ScoringCost()
            scores = self._scores(values, part, took)
            if path is not None:
                write_sealed(path, {"scores": scores}, {"passes": took.passes, "tokens": took.tokens})
        self.passes.add(took)
        return scores

    def _scores(self, values: Sequence[Tensor], part: Encoded, took: ScoringCost) -> Tensor:
        on_rows = self._watch.advance
        if self._labels is None:
            return target_losses_of(self.model, values, part, on_rows=on_rows, passes=took)[..., None]
        scores = label_scores_of(self.model, values, part, self._labels, on_rows=on_rows, passes=took)
        if self.recipe.label_score == "mean":
            scores = scores / torch.tensor([len(label) for label in self._labels])
        return scores

    def _name(self, values: Sequence[Tensor], part: Encoded) -> str:
        """Returns a hash of everything that decides scores."""
        held = [self.model.fingerprint, str(self.model.dtype), self.recipe.label_score, repr(self._labels)]
        texts = [repr(part.inputs), repr(part.targets)]
        return sha256_of_text([*held, *texts, *(repr(value.tolist()) for value in values)])[:16]

    def _loss(self, scores: Tensor) -> float:
        """Returns the mean loss in nats: after fitting a calibration, or of the targets if they are open."""
        if self.task.labels is None:
            return float(scores.mean())
        gold = self._gold(len(scores))
        return float(functional.cross_entropy(calibrated(scores, fit_calibration(scores, gold)), gold))

    def _gold(self, rows: int) -> Tensor:
        return gold_indices([row.target for row in self.rows[:rows]], self.task.labels or ())

    def _explained(self, scores: Tensor, text: Tensor) -> float:
        """Returns the share of the baseline loss that a prompt removes (McFadden's pseudo R squared).

        The baseline knows nothing of a row: the entropy of the rows' labels; for open targets, the loss after the
        target's own text.
        """
        rows = len(scores)
        if self.task.labels is None:
            rows = min(rows, len(text))
            reference = self._loss(text[:rows])
        else:
            counts = torch.bincount(self._gold(rows)).double()
            shares = counts[counts > 0] / rows
            reference = float(-(shares * shares.log()).sum())
        return 1 - self._loss(scores[:rows]) / reference if reference > 0 else 0.0

    def _as_retrieved(self, place: int, scores: Mapping[int, Tensor]) -> Retrieved:
        one, own = self.candidates[place], scores[place]
        explained = self._explained(own, scores[0])  # the text is the first candidate
        return Retrieved(one.name, explained, one.prompt, self._loss(own), "trial", one.is_source)
