"""Rounds, in which the arms take turns: what is timed, and in which order.

On a shared machine, or one whose clock rate changes, timing first one arm and then another measures the machine. Here
every round runs all arms one after another, in an order that rotates each time. Only ratios within a round count.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from experiments.bench import arms as competitors
from experiments.bench.arms import Arm, SpotonArm
from experiments.bench.names import COMPILED, DOCUMENTED, EXACT, LIMIT, SMOLLM, SPOTON, T5
from experiments.bench.products import DecoderShape, runner, unavoidable_products
from experiments.bench.ratios import Round, disagreeing
from experiments.bench.texts import Texts, folded
from spoton.models.engine import Batch


@dataclass(frozen=True)
class Configuration:
    """One block of the tables.

    Attributes:
        model: `SMOLLM` or `T5`.
        work: What is timed.
        length: P, tokens of the prompt.
        batch_size: B, rows of a batch.
    """

    model: str
    work: Literal["training", "scoring"]
    length: int
    batch_size: int

    @property
    def title(self) -> str:
        """Returns the title for progress lines."""
        return f"{self.model}, {self.work}, P={self.length}, batch {self.batch_size}"

    @property
    def cost(self) -> float:
        """Returns a round's rough relative time, for the estimate of the time left."""
        return self.batch_size * (self.length + 128) * (0.1 if self.model == T5 else 1.0)


class Contest:
    """All arms of one configuration, ready to run.

    Args:
        configuration: What to measure.
        texts: The texts that the arms read.
        tell: Called with a progress message.
    """

    def __init__(self, configuration: Configuration, texts: Texts, tell: Callable[[str], None]) -> None:
        self.configuration, self._texts = configuration, texts
        self.arms: dict[str, Arm] = {}
        for name in competitors.arm_names(configuration.model):
            self.arms[name] = competitors.make_arm(name, configuration.model, configuration.length)
        first = self.batches(0)
        self.losses = {name: self._loss(arm, first[0]) for name, arm in self.arms.items()}
        self.dtypes = {name: str(arm.dtype).removeprefix("torch.") for name, arm in self.arms.items()}
        if configuration.model == SMOLLM:
            # With the weights of the arm in float32, so that rounding cannot explain a difference.
            weights = competitors.frozen(DOCUMENTED, SMOLLM)
            exact = SpotonArm(EXACT, weights, competitors.initial_prompt(weights, configuration.length))
            self.losses[EXACT], self.dtypes[EXACT] = self._loss(exact, first[0]), "float32"
        self.problems = disagreeing(self.losses, self.dtypes)
        self.warm_up: dict[str, float] = {}
        for name, arm in self.arms.items():
            if arm.pads_to and configuration.work == "scoring":
                continue  # by far the slowest, and computing its loss did the same work
            tell(f"{configuration.title}: warming up {name}")
            # The longest batch touches all memory that a round needs. The compiler needs every shape, and makes its
            # general version only when it sees a second shape.
            passes = [first, first] if name == COMPILED else [self._share(arm, first[-1:])]
            self.warm_up[name] = sum(self._timed(arm, part)["wall"] * len(part) for part in passes)

    def batches(self, round_number: int) -> list[Batch]:
        """Returns the batches that every arm reads in a round."""
        batches = self._texts.batches(self.configuration.batch_size, round_number)
        if self.configuration.model != T5:
            return batches
        config = competitors.frozen(SPOTON, T5).network.config
        return folded(batches, config.vocab_size, config.eos_token_id)

    def rounds(self, count: int) -> Iterator[Round]:
        """Runs one round per iteration; the first has all arms."""
        for number in range(count):
            batches = self.batches(number)
            turns: dict[str, Callable[[], dict[str, float]]] = {
                name: lambda arm=arm: self._timed(arm, self._share(arm, batches))  # type: ignore[misc]  # noqa: B023
                for name, arm in self.arms.items()
                if not (arm.pads_to and number % 2)  # by far the slowest; every other round is enough
            }
            if self.configuration.model == SMOLLM:
                turns[LIMIT] = lambda: self._timed_limit(batches)  # noqa: B023  # called within this iteration
            names = list(turns)
            order = names[number % len(names) :] + names[: number % len(names)]
            found = {name: turns[name]() for name in order}
            yield {name: found[name] for name in names}

    def record(self, rounds: Sequence[Round]) -> dict[str, Any]:
        """Returns all results, as plain values."""
        return asdict(self.configuration) | {
            "losses": self.losses,
            "dtypes": self.dtypes,
            "warm_up_seconds": self.warm_up,
            "rounds": list(rounds),
        }

    def _loss(self, arm: Arm, batch: Batch) -> float:
        """Returns the loss of what is timed, training or scoring; for scoring, the loss of the right labels."""
        if self.configuration.work == "training":
            return arm.loss(batch)
        scores = arm.scores([batch], self._texts.labels)
        gold = [self._texts.labels.index(list(target)) for target in batch.targets]
        return -float(scores[torch.arange(len(gold)), gold].mean())

    def _share(self, arm: Arm, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Returns the batches to time: only one for an arm that pads to a fixed length, since all take equally long."""
        return batches[:1] if arm.pads_to else batches

    def _timed(self, arm: Arm, batches: Sequence[Batch]) -> dict[str, float]:
        arm.reset()
        gc.collect()
        if self.configuration.work == "scoring":
            read = [*batches] * arm.scores_at_once
            return _clocked(lambda: arm.scores(read, self._texts.labels), len(read))

        def steps() -> None:
            for batch in batches:
                arm.step(batch)

        return _clocked(steps, len(batches))

    def _timed_limit(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Times the products of each batch in turn, in the type that spoton computes in."""
        shape = DecoderShape.of(competitors.frozen(SPOTON, SMOLLM).network.config)
        training = self.configuration.work == "training"
        total = {"wall": 0.0, "cpu": 0.0}
        for batch in batches:
            # A target's last token is never read. Labels of one token add nothing to the text in scoring.
            lengths = [
                len(text) + (len(target) - 1 if training else 0)
                for text, target in zip(batch.inputs, batch.targets, strict=True)
            ]
            targets = sum(map(len, batch.targets)) if training else len(batch)
            run = runner(
                unavoidable_products(shape, self.configuration.length, lengths, targets, training=training),
                self.arms[SPOTON].dtype,
            )
            run()  # the first call of a shape prepares its kernel
            for clock, seconds in _clocked(run, len(batches)).items():
                total[clock] += seconds
        return total


def _clocked(work: Callable[[], object], parts: int) -> dict[str, float]:
    """Returns wall seconds and processor seconds (of all threads) of one part."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": (time.perf_counter() - wall) / parts, "cpu": (time.process_time() - cpu) / parts}
